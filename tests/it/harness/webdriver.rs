//! A headless Chromium that a test drives with a mouse: chromedriver, over the protocol of W3C's `WebDriver`.

use super::browser::{BROWSER_WITHIN, HEADLESS};
use super::client::connect;
use super::eventually::eventually_true;
use super::ports;
use super::process::Process;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A browser with one window. It ends when dropped.
pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    /// Kept as long as the browser runs.
    _process: Process,
    _profile: TempDir,
}

/// An element of the page.
#[derive(Debug, Clone)]
pub(crate) struct Element(String);

/// The member of an answer that names an element, by the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    /// Starts chromedriver and a browser with a window of this width.
    #[track_caller]
    pub(crate) fn start((chromedriver, chromium): (&Path, &Path), width: u32) -> Self {
        let driver = ports::free();
        let profile = tempfile::tempdir().expect("a directory for the browser");
        let mut command = Command::new(chromedriver);
        command.arg(format!("--port={}", driver.port()));
        let process = Process::start(command, None, false);
        eventually_true(BROWSER_WITHIN, "chromedriver listens", || {
            TcpStream::connect(driver).is_ok()
        });
        let arguments: Vec<String> = HEADLESS
            .map(str::to_owned)
            .into_iter()
            .chain([
                format!("--window-size={width},900"),
                format!("--user-data-dir={}", profile.path().display()),
            ])
            .collect();
        let options = json!({
            "binary": chromium,
            "args": arguments,
        });
        let wanted = json!({ "alwaysMatch": { "goog:chromeOptions": options } });
        let begun = request(
            driver,
            "POST",
            "/session",
            &json!({ "capabilities": wanted }),
        );
        let session = begun["sessionId"].as_str().expect("a session").to_owned();
        Self {
            driver,
            session,
            _process: process,
            _profile: profile,
        }
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        request(self.driver, method, &path, body)
    }

    /// Opens `url`, and waits until it is loaded.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// Waits for a page whose URL ends with this: a click may come back before the page that it leads to is there.
    #[track_caller]
    pub(crate) fn wait_for(&self, end: &str) {
        eventually_true(BROWSER_WITHIN, &format!("a page at …{end}"), || {
            let url = self.ask("GET", "/url", &Value::Null);
            url.as_str().is_some_and(|url| url.ends_with(end))
        });
    }

    /// The page as it is now.
    #[track_caller]
    pub(crate) fn source(&self) -> String {
        let source = self.ask("GET", "/source", &Value::Null);
        source.as_str().expect("a text").to_owned()
    }

    /// The first element that the CSS selector takes.
    #[track_caller]
    pub(crate) fn find(&self, selector: &str) -> Element {
        let how = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", &how);
        Element(found[ELEMENT].as_str().expect("an element").to_owned())
    }

    /// Clicks the first element that the CSS selector takes. It must be in sight once it is scrolled to.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let Element(id) = self.find(selector);
        self.ask("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// What is to be seen of the text of the first element that the CSS selector takes.
    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> String {
        let Element(id) = self.find(selector);
        let text = self.ask("GET", &format!("/element/{id}/text"), &Value::Null);
        text.as_str().expect("a text").to_owned()
    }

    /// The value of a function's body in the page. A page that forbids scripts does not forbid this.
    #[track_caller]
    pub(crate) fn evaluate(&self, script: &str) -> Value {
        let call = json!({ "script": script, "args": [] });
        self.ask("POST", "/execute/sync", &call)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends the browser; chromedriver itself ends with `Process`. After a panic neither may answer.
        let path = format!("/session/{}", self.session);
        let _ = exchange(self.driver, "DELETE", &path, "");
    }
}

/// The value of chromedriver's answer.
#[track_caller]
fn request(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let (status, mut answer) = exchange(driver, method, path, &body).expect("an answer");
    assert!(status.contains(" 200 "), "{method} {path}: {answer}");
    answer["value"].take()
}

/// One request on a connection of its own, which chromedriver does not end: the status line and the answer.
fn exchange(
    driver: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(String, Value)> {
    let mut stream = connect(driver);
    stream.set_read_timeout(Some(BROWSER_WITHIN))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    Ok((status, serde_json::from_slice(&text)?))
}
