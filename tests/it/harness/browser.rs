//! A real Chromium, driven by W3C `WebDriver` over chromedriver.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    process::Process,
    wait::{WAIT_TIMEOUT, wait_for},
};

/// Programs that the tests of pages need.
pub const PARTS: &[&str] = &["chromium", "chromedriver"];

/// A browser window, which is closed when it is dropped.
pub struct Browser {
    _driver: Process,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Opens a window of that size in CSS pixels.
    #[track_caller]
    pub fn open(width: u32, height: u32) -> Self {
        let (driver, address) = driver();
        let size = format!("--window-size={width},{height}");
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &size];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = call(address, "POST", "/session", &wanted)["sessionId"].as_str().unwrap().to_owned();
        Self { _driver: driver, address, session }
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Returns the result of a script.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Returns the value that a script passes to the function that is its only argument.
    #[track_caller]
    pub fn script_later(&self, script: &str) -> Value {
        self.command("execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns true.
    #[track_caller]
    pub fn until(&self, what: &str, script: &str) {
        wait_for(what, || (self.script(script) == true).then_some(()));
    }

    /// Sends a command of Chromium's `DevTools` protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Types a key, by its code in `WebDriver`.
    #[track_caller]
    pub fn press(&self, key: char) {
        let press = |kind: &str| json!({ "type": kind, "value": key });
        let actions = json!([{ "type": "key", "id": "keys", "actions": [press("keyDown"), press("keyUp")] }]);
        self.command("actions", &json!({ "actions": actions }));
    }

    /// Returns console messages above the level of a note since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let said = self.log("browser").into_iter();
        let bad = said.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    /// Returns the URLs of all requests since the last call.
    #[track_caller]
    pub fn requests(&self) -> Vec<String> {
        let events = self
            .log("performance")
            .into_iter()
            .map(|entry| -> Value { serde_json::from_str(entry["message"].as_str().unwrap()).unwrap() });
        let events = events.map(|event| event["message"].clone());
        let sent = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn log(&self, kind: &str) -> Vec<Value> {
        self.command("se/log", &json!({ "type": kind })).as_array().unwrap().clone()
    }

    #[track_caller]
    fn command(&self, path: &str, parameters: &Value) -> Value {
        call(self.address, "POST", &format!("/session/{}/{path}", self.session), parameters)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends Chromium on this request.
        let _ = exchange(self.address, "DELETE", &format!("/session/{}", self.session), "");
    }
}

/// Starts a `ChromeDriver` and returns its address. It takes a free port of IPv6 and requests the
/// same one of IPv4; if that is taken, it ends, and another one is started.
#[track_caller]
fn driver() -> (Process, SocketAddr) {
    for _ in 0..10 {
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromedriver --port=0 >&2"]);
        let mut driver = Process::start(command);
        let port = driver.logs("chromedriver to be ready", |log| {
            if log.contains("IPv4 port not available") {
                return Some(None);
            }
            let (_, port) = log.split_once("started successfully on port ")?;
            Some(Some(port.split('.').next()?.parse().ok()?))
        });
        if let Some(port) = port {
            return (driver, SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
    panic!("no port of IPv6 that chromedriver took was free in IPv4, ten times")
}

/// Returns the value of the driver's response.
#[track_caller]
fn call(address: SocketAddr, method: &str, path: &str, parameters: &Value) -> Value {
    let text = exchange(address, method, path, &parameters.to_string()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut answer: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer["value"].take()
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_TIMEOUT)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    // It keeps the connection open regardless of the request.
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let begin = head.len();
        reader.read_line(&mut head)?;
        let line = head[begin..].trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(head + &String::from_utf8_lossy(&body))
}
