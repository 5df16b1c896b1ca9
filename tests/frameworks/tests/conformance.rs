//! What every session store must do, stated once and held against each: the same site in each framework, three instances of it at a time, each a
//! process with its node, asked over HTTP as browsers ask.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plenary_frameworks::client::{Answer, Browser, Cookies, PATIENCE, ask, try_ask, until};
use plenary_frameworks::{Framework, SHORT};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An item that is larger than an item may be.
const TOO_LARGE: usize = 2 << 20;

/// Requests of one user at once.
const AT_ONCE: usize = 24;

/// What a case is called, and what it asks of a site.
type Case = (&'static str, fn(&mut Site));

/// What is asked of every store, in this order; the last one leaves two instances.
const CASES: &[Case] = &[
    ("a login is seen on every instance at once", login_is_seen_at_once),
    ("what one instance saves the others have", saves_are_seen),
    (
        "a session may be given back what it had before",
        returns_to_what_it_was,
    ),
    (
        "a login takes the id that was there before out of use",
        login_renews_the_id,
    ),
    ("a session ends when it was not used, and not before", ends_idle),
    ("a session that is used lives on", use_renews),
    ("a logout ends the session on every instance", logout_ends),
    (
        "a request that outlives its session does not bring it back",
        no_resurrection,
    ),
    ("an id that nobody knows is nobody", unknown_id),
    ("a malformed cookie is nobody", malformed_cookie),
    (
        "an item that is too large is refused, and nothing else is lost",
        too_large,
    ),
    (
        "requests of one user at once keep the session and what each of them has set",
        at_once,
    ),
    (
        "a session outlives the instance that made it",
        outlives_its_instance,
    ),
];

struct Instance {
    process: Child,
    /// Sessions live for an hour here …
    long: SocketAddr,
    /// … and for [`SHORT`] here.
    short: SocketAddr,
    resp: SocketAddr,
}

struct Site {
    framework: Framework,
    instances: Vec<Instance>,
    _folder: tempfile::TempDir,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Instance {
    /// One command to the node's Redis endpoint; the first line of the answer.
    fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.resp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{command}\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// How many keys there are, without a use of one.
    fn keys(&self) -> String {
        self.command("DBSIZE")
    }
}

impl Site {
    fn start(framework: Framework) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // All at once, so that they differ.
        let listeners: Vec<_> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let peers: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().to_string())
            .collect();
        drop(listeners);
        let started: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(number, listen)| {
                Command::new(env!("CARGO_BIN_EXE_plenary-frameworks"))
                    .args([
                        framework.name(),
                        folder.path().join(number.to_string()).to_str().unwrap(),
                    ])
                    .args([listen, &peers.join(",")])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let instances = started.into_iter().map(|mut process| {
            let mut out = BufReader::new(process.stdout.take().unwrap());
            // Frameworks may say something themselves.
            let mut ready = out.by_ref().lines().take(16).map(Result::unwrap);
            let line = ready.find(|line| line.starts_with("ready ")).unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, long, short, resp] = words[..] else {
                panic!("{}: it did not start", framework.name());
            };
            // Read on, so that it never waits for a reader.
            std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
            Instance {
                long: long.parse().unwrap(),
                short: short.parse().unwrap(),
                resp: resp.parse().unwrap(),
                process,
            }
        });
        Self {
            framework,
            instances: instances.collect(),
            _folder: folder,
        }
    }

    fn at(&self, number: usize) -> SocketAddr {
        self.instances[number % self.instances.len()].long
    }

    /// The same session on all instances, as soon as they have applied what was acknowledged elsewhere.
    fn everywhere(&self, what: &str, is_so: impl Fn(SocketAddr) -> bool) {
        for instance in &self.instances {
            until(what, || is_so(instance.long));
        }
    }

    /// Whether of two requests that set different items at once both win. The others hand over the session as one item, or as a record that the last
    /// one wins whole.
    fn merges(&self) -> bool {
        !matches!(self.framework, Framework::AxumSession | Framework::Tower)
    }

    /// Whether the framework answers with an error when the store could not save. The others have sent the answer already, or keep what was not
    /// saved in memory for ever.
    fn tells(&self, gone: bool) -> bool {
        match self.framework {
            Framework::Rocket => false,
            Framework::AxumSession => !gone,
            _ => true,
        }
    }
}

fn login(at: SocketAddr, user: &str) -> Browser {
    let mut browser = Browser::default();
    let answer = browser.ask(at, "POST", &format!("/login?user={user}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!browser.cookies.is_empty(), "a login sets the cookie");
    browser
}

fn status(at: SocketAddr, path: &str, cookies: &Cookies) -> u16 {
    ask(at, "GET", path, cookies).status
}

fn login_is_seen_at_once(site: &mut Site) {
    for number in 0..30 {
        let user = format!("user{number}");
        let mut browser = login(site.at(number), &user);
        for other in 1..3 {
            assert_eq!(browser.whoami(site.at(number + other)), Some(user.clone()));
        }
    }
}

fn saves_are_seen(site: &mut Site) {
    let mut browser = login(site.at(0), "ada");
    for (number, name) in ["first", "second", "third"].into_iter().enumerate() {
        let answer = browser.ask(
            site.at(number),
            "POST",
            &format!("/set?name={name}&value=v{number}"),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookies = browser.cookies.clone();
        site.everywhere("saved there, seen here", |at| {
            let answer = ask(at, "GET", &format!("/get?name={name}"), &cookies);
            answer.status == 200 && answer.body == format!("v{number}")
        });
    }
    assert_eq!(browser.ask(site.at(0), "GET", "/get?name=first").body, "v0");
    assert_eq!(browser.whoami(site.at(1)).as_deref(), Some("ada"));
}

fn returns_to_what_it_was(site: &mut Site) {
    let mut browser = Browser::default();
    let begin = browser.ask(site.at(0), "POST", "/set?name=theme&value=dark");
    assert_eq!(begin.status, 200);
    // All by one instance: it knows what there was before.
    for round in 0..3 {
        let mut ask = |path: &str| assert_eq!(browser.ask(site.at(0), "POST", path).status, 200);
        ask("/set?name=user&value=ada");
        ask("/set?name=theme&value=light");
        let cookies = &browser.cookies;
        site.everywhere("logged in", |at| status(at, "/whoami", cookies) == 200);
        let mut ask = |path: &str| assert_eq!(browser.ask(site.at(0), "POST", path).status, 200);
        ask("/set?name=theme&value=dark");
        // A logout that takes away what the login set.
        ask("/remove?name=user");
        assert_eq!(browser.whoami(site.at(0)), None, "round {round}");
        assert_eq!(browser.ask(site.at(0), "GET", "/get?name=theme").body, "dark");
        let cookies = &browser.cookies;
        site.everywhere("logged out", |at| status(at, "/whoami", cookies) == 401);
    }
}

fn login_renews_the_id(site: &mut Site) {
    let mut browser = Browser::default();
    assert_eq!(
        browser
            .ask(site.at(0), "POST", "/set?name=cart&value=book")
            .status,
        200
    );
    let before = browser.cookies.clone();
    assert_eq!(browser.ask(site.at(1), "POST", "/login?user=ada").status, 200);
    assert_ne!(before, browser.cookies);
    assert_eq!(browser.whoami(site.at(2)).as_deref(), Some("ada"));
    assert_eq!(browser.ask(site.at(2), "GET", "/get?name=cart").body, "book");
    site.everywhere("nobody is logged in with the old id", |at| {
        status(at, "/whoami", &before) == 401
    });
}

fn ends_idle(site: &mut Site) {
    let before = site.instances[0].keys();
    let mut browser = Browser::default();
    let began = Instant::now();
    assert_eq!(
        browser
            .ask(site.instances[0].short, "POST", "/set?name=a&value=b")
            .status,
        200
    );
    assert_ne!(site.instances[0].keys(), before);
    until("it has ended", || site.instances[0].keys() == before);
    let lived = began.elapsed();
    assert!(lived >= SHORT, "it ended after {lived:?}");
    assert!(lived < SHORT + Duration::from_secs(8), "it ended after {lived:?}");
    let cookies = browser.cookies;
    for instance in &site.instances {
        until("it has ended here", || {
            status(instance.short, "/get?name=a", &cookies) == 404
        });
    }
}

fn use_renews(site: &mut Site) {
    let (at, other) = (site.instances[0].short, site.instances[1].short);
    let mut browser = Browser::default();
    assert_eq!(browser.ask(at, "POST", "/login?user=ada").status, 200);
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < 2 * SHORT {
        number += 1;
        let answer = browser.ask(at, "POST", &format!("/set?name=n&value={number}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            browser.whoami(other).as_deref(),
            Some("ada"),
            "after {:?}",
            began.elapsed()
        );
        // Time that passes is what is tried here.
        std::thread::sleep(SHORT / 10);
    }
}

fn logout_ends(site: &mut Site) {
    let mut browser = login(site.at(0), "ada");
    let cookies = browser.cookies.clone();
    assert_eq!(browser.ask(site.at(1), "POST", "/logout").status, 200);
    assert_eq!(browser.whoami(site.at(1)), None);
    site.everywhere("it has ended", |at| status(at, "/whoami", &cookies) == 401);
    assert_eq!(ask(site.at(2), "POST", "/logout", &cookies).status, 200);
}

fn no_resurrection(site: &mut Site) {
    let browser = login(site.at(0), "ada");
    let cookies = browser.cookies.clone();
    let at = site.at(0);
    let slow = {
        let cookies = cookies.clone();
        std::thread::spawn(move || ask(at, "POST", "/slow?name=late&value=b", &cookies))
    };
    let none = Cookies::new();
    until("the slow request has its session", || {
        ask(at, "GET", "/waiting", &none).body == "1"
    });
    assert_eq!(ask(site.at(1), "POST", "/logout", &cookies).status, 200);
    // Somebody still has the cookie, and begins another session.
    let mut again = Browser {
        cookies: cookies.clone(),
    };
    assert_eq!(again.ask(site.at(1), "POST", "/set?name=new&value=b").status, 200);
    assert_eq!(ask(at, "POST", "/go", &none).status, 200);
    let late: Answer = slow.join().unwrap();
    assert_eq!(late.status >= 500, site.tells(true), "{late:?}");
    let mut theirs = cookies.clone();
    theirs.extend(
        late.set
            .into_iter()
            .filter(|(_, _, removes)| !removes)
            .map(|(name, value, _)| (name, value)),
    );
    for cookies in [&cookies, &theirs, &again.cookies] {
        site.everywhere("nobody is logged in", |at| status(at, "/whoami", cookies) == 401);
        site.everywhere("nothing was saved", |at| {
            status(at, "/get?name=late", cookies) == 404
        });
    }
    assert_eq!(again.ask(site.at(1), "GET", "/get?name=new").body, "b");
}

/// Cookies as this site sets them, with another value.
fn with_value(site: &Site, value: &str) -> Cookies {
    let browser = login(site.at(0), "ada");
    let names = browser.cookies.into_keys();
    names.map(|name| (name, value.to_owned())).collect()
}

fn unknown_id(site: &mut Site) {
    // As the frameworks draw them: of tower-sessions, poem, axum_session. The others sign or encrypt theirs.
    let ids = [
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "00000000-0000-4000-8000-000000000000",
    ];
    for id in ids {
        let cookies = with_value(site, id);
        for instance in &site.instances {
            assert_eq!(status(instance.long, "/whoami", &cookies), 401, "{id}");
        }
    }
    let mut browser = Browser {
        cookies: with_value(site, ids[0]),
    };
    assert_eq!(browser.ask(site.at(0), "POST", "/set?name=a&value=b").status, 200);
    assert_eq!(browser.ask(site.at(1), "GET", "/get?name=a").body, "b");
    assert_eq!(browser.whoami(site.at(2)), None);
}

fn malformed_cookie(site: &mut Site) {
    let long = "a".repeat(3_000);
    for value in [
        "",
        "x",
        "../../etc/passwd",
        "%00%ff%zz",
        "a b",
        "{\"a\":1}",
        "=====",
        "ä",
        &long,
    ] {
        let cookies = with_value(site, value);
        for instance in &site.instances {
            assert_eq!(status(instance.long, "/whoami", &cookies), 401, "{value:?}");
        }
    }
}

fn too_large(site: &mut Site) {
    let mut browser = login(site.at(0), "ada");
    let answer = browser.ask(site.at(0), "POST", &format!("/set?name=large&bytes={TOO_LARGE}"));
    assert_eq!(answer.status >= 500, site.tells(false), "{}", answer.status);
    for other in 1..3 {
        assert_eq!(browser.whoami(site.at(other)).as_deref(), Some("ada"));
        assert_eq!(browser.ask(site.at(other), "GET", "/get?name=large").status, 404);
    }
}

fn at_once(site: &mut Site) {
    let browser = login(site.at(0), "ada");
    let requests: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let (at, cookies) = (site.at(number), browser.cookies.clone());
            std::thread::spawn(move || {
                ask(at, "POST", &format!("/set?name=n{number}&value=b"), &cookies).status
            })
        })
        .collect();
    for request in requests {
        assert_eq!(request.join().unwrap(), 200);
    }
    site.everywhere("still logged in", |at| {
        status(at, "/whoami", &browser.cookies) == 200
    });
    for number in (0..AT_ONCE).filter(|_| site.merges()) {
        site.everywhere("what each request has set", |at| {
            status(at, &format!("/get?name=n{number}"), &browser.cookies) == 200
        });
    }
}

fn outlives_its_instance(site: &mut Site) {
    let mut browser = login(site.at(0), "ada");
    assert_eq!(browser.ask(site.at(0), "POST", "/set?name=a&value=b").status, 200);
    // SIGKILL: it says goodbye to nobody.
    drop(site.instances.remove(0));
    let cookies = browser.cookies.clone();
    site.everywhere("the session is there", |at| {
        try_ask(at, "GET", "/whoami", &cookies).is_some_and(|answer| answer.body == "ada")
    });
    site.everywhere("what was saved is there", |at| {
        try_ask(at, "GET", "/get?name=a", &cookies).is_some_and(|answer| answer.body == "b")
    });
    site.everywhere("others can log in", |at| {
        try_ask(at, "POST", "/login?user=eve", &Cookies::new()).is_some_and(|answer| answer.status == 200)
    });
}

fn hold(framework: Framework) {
    let mut site = Site::start(framework);
    let mut failed = Vec::new();
    for (what, case) in CASES {
        eprintln!("{}: {what}", framework.name());
        if catch_unwind(AssertUnwindSafe(|| case(&mut site))).is_err() {
            failed.push(*what);
        }
    }
    assert!(failed.is_empty(), "{}: not so: {failed:#?}", framework.name());
}

#[test]
fn actix_session() {
    hold(Framework::Actix);
}

#[test]
fn axum_session() {
    hold(Framework::AxumSession);
}

#[test]
fn poem() {
    hold(Framework::Poem);
}

#[test]
fn rocket() {
    hold(Framework::Rocket);
}

#[test]
fn salvo() {
    hold(Framework::Salvo);
}

#[test]
fn tower_sessions() {
    hold(Framework::Tower);
}
