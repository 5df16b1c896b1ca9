//! A browser as far as these tests need one: it asks, and may keep a cookie. One connection for each request; blocking.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer, or a condition, may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Cookies by name.
pub type Cookies = BTreeMap<String, String>;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// What `Set-Cookie` said, in order: name, value, whether that removes it.
    pub set: Vec<(String, String, bool)>,
    /// The same as it was sent, in small letters.
    pub raw: Vec<String>,
}

/// Asks once; `None` if nobody answers.
pub fn try_ask(at: SocketAddr, method: &str, path: &str, cookies: &Cookies) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let pairs: Vec<_> = cookies
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cookie = if pairs.is_empty() {
        String::new()
    } else {
        format!("Cookie: {}\r\n", pairs.join("; "))
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n{cookie}\r\n"
    )
    .ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
    let chunked = headers
        .iter()
        .any(|(name, value)| is(name, "transfer-encoding") && value.contains("chunked"));
    let set = headers
        .iter()
        .filter(|(name, _)| is(name, "set-cookie"))
        .filter_map(|(_, value)| {
            let (name, rest) = value.split_once('=')?;
            let value = rest.split(';').next()?;
            let removes = value.is_empty() || rest.to_ascii_lowercase().contains("max-age=0");
            Some((name.to_owned(), value.to_owned(), removes))
        });
    let raw = headers
        .iter()
        .filter(|(name, _)| is(name, "set-cookie"))
        .map(|(_, value)| value.to_ascii_lowercase());
    Some(Answer {
        status,
        body: if chunked {
            unchunked(body)?
        } else {
            body.to_owned()
        },
        set: set.collect(),
        raw: raw.collect(),
    })
}

fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        body = rest.get(length + 2..)?;
    }
}

/// Asks; a test fails if nobody answers.
pub fn ask(at: SocketAddr, method: &str, path: &str, cookies: &Cookies) -> Answer {
    try_ask(at, method, path, cookies).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// Somebody with a browser, which keeps cookies.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    pub cookies: Cookies,
}

impl Browser {
    pub fn ask(&mut self, at: SocketAddr, method: &str, path: &str) -> Answer {
        let answer = ask(at, method, path, &self.cookies);
        for (name, value, removes) in &answer.set {
            if *removes {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.clone(), value.clone());
            }
        }
        answer
    }

    /// Who this is to the site; nobody if it says 401.
    pub fn whoami(&mut self, at: SocketAddr) -> Option<String> {
        let answer = self.ask(at, "GET", "/whoami");
        match answer.status {
            200 => Some(answer.body),
            401 => None,
            other => panic!("GET /whoami: {other} {}", answer.body),
        }
    }
}

/// Waits until it is so; a test fails if it never is.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::sleep(PAUSE);
    }
}
