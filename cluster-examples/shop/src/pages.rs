//! The shop's pages: plain HTML with forms, no script. What a visitor wrote is escaped wherever it is shown.

use crate::shop::Basket;
use std::fmt::Write;
use std::time::Duration;

/// Ended sessions that the list shows.
const ENDED_SHOWN: usize = 10;

/// One of the user's sessions.
pub(crate) struct SessionLine {
    pub(crate) key: String,
    pub(crate) browser: Option<String>,
    pub(crate) age: Duration,
    /// Whether it is the one that asks.
    pub(crate) here: bool,
}

/// A whole page around this.
pub(crate) fn page(copy: &str, dark: bool, body: &str) -> String {
    let (theme, other) = if dark {
        ("dark", "light")
    } else {
        ("light", "dark")
    };
    format!(
        "<!doctype html>
<html lang=\"en\" style=\"color-scheme: {theme}\">
<meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Mugs</title>
<style>
body {{ max-width: 40rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }}
form {{ display: inline }} nav, footer {{ margin: 1rem 0 }} footer {{ opacity: .6; font-size: .85rem }}
</style>
<h1><a href=\"/\">Mugs, with your words on them</a></h1>
{body}
<footer>served by {copy} {}</footer>
",
        button("/theme", &format!("make it {other}"), &[("theme", other)]),
        copy = escaped(copy),
    )
}

/// What is in the basket, and who is logged in.
pub(crate) fn basket(user: Option<&str>, basket: &Basket) -> String {
    let mut html = String::from("<nav>");
    // Writing to a String cannot fail.
    let _ = match user {
        Some(user) => write!(
            html,
            "<b class=\"user\">{}</b> <a href=\"/sessions\">where you are logged in</a> {}",
            escaped(user),
            button("/logout", "log out", &[])
        ),
        None => write!(html, "{}", field("/login", "user", "your name", "log in")),
    };
    html.push_str("</nav>\n<h2>Your basket</h2>\n<ul>\n");
    for mug in &basket.mugs {
        let _ = writeln!(html, "<li class=\"mug\">{}</li>", escaped(mug));
    }
    html.push_str("</ul>\n");
    html.push_str(&field("/add", "mug", "what is to be on it", "add a mug"));
    if !basket.mugs.is_empty() {
        html.push_str(&button("/order", "order all of it", &[]));
    }
    let _ = write!(
        html,
        "\n<p class=\"ordered\">{} mugs ordered so far</p>",
        basket.ordered
    );
    html
}

/// The user's sessions, and how others ended and how long ago.
pub(crate) fn sessions(user: &str, sessions: &[SessionLine], ended: &[(Duration, &str)]) -> String {
    let mut html = format!("<h2>Where {} is logged in</h2>\n<ul>\n", escaped(user));
    for session in sessions {
        let browser = session.browser.as_deref().unwrap_or("unknown");
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<li class=\"session\">{}, since {}: ",
            escaped(browser),
            ago(session.age)
        );
        if session.here {
            html.push_str("this one</li>\n");
        } else {
            let end = button("/end", "end it", &[("session", &session.key)]);
            let _ = writeln!(html, "{end}</li>");
        }
    }
    html.push_str("</ul>\n");
    html.push_str(&button("/logout-everywhere", "sign out everywhere", &[]));
    html.push_str("\n<h2>What has ended</h2>\n<ul>\n");
    for (since, reason) in ended.iter().take(ENDED_SHOWN) {
        let _ = writeln!(html, "<li class=\"ended\">{} ago: {reason}</li>", ago(*since));
    }
    html.push_str("</ul>");
    html
}

/// Why something was not done.
pub(crate) fn refusal(why: &str) -> String {
    format!("<p>{}</p>\n<p><a href=\"/\">back</a></p>", escaped(why))
}

/// A form of one button.
fn button(path: &str, label: &str, hidden: &[(&str, &str)]) -> String {
    let mut html = format!("<form method=\"post\" action=\"{path}\">");
    for (name, value) in hidden {
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<input type=\"hidden\" name=\"{name}\" value=\"{}\">",
            escaped(value)
        );
    }
    let _ = write!(html, "<button>{}</button></form>", escaped(label));
    html
}

/// A form of one field.
fn field(path: &str, name: &str, hint: &str, label: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{path}\"><input name=\"{name}\" placeholder=\"{hint}\" maxlength=\"100\" required> \
         <button>{label}</button></form>\n"
    )
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// Text as it may stand in a page, also between quotes.
pub(crate) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
