//! Drives a headless Chromium by the WebDriver protocol (W3C) of chromedriver: pages, keys, clicks,
//! sizes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, program, temp_dir, tools};

/// How long an answer of chromedriver may take; its own timeouts, of a minute, end before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(180);

/// Keys as WebDriver names them (section 17.4.2).
pub const LEFT: char = '\u{e012}';
pub const RIGHT: char = '\u{e014}';
pub const HOME: char = '\u{e011}';

/// The name of an element reference in JSON (section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window, which ends when this is dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The browser itself, a child of chromedriver.
    pid: u64,
    /// The only place where the browser writes; the path is in its command line.
    home: TempDir,
}

impl Browser {
    /// Starts a browser with a window of 1280×800; none if it is not installed.
    pub fn start() -> Option<Self> {
        const REMEDY: &str = "apt-get install chromium chromium-driver";
        let chromium = tools::need("chromium", REMEDY)?;
        let chromedriver = tools::need("chromedriver", REMEDY)?;
        let home = temp_dir();
        let mut driver = program(chromedriver);
        driver.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"] {
            driver.env(variable, home.path());
        }
        let mut driver = driver.spawn().unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        // From here on, dropping it ends chromedriver and the browser, also after a panic.
        let mut browser = Self { driver, port: 0, session: String::new(), pid: 0, home };
        browser.port = port(&mut output);
        // Its stdout must not be closed.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        browser.open(&chromium);
        Some(browser)
    }

    fn open(&mut self, chromium: &Path) {
        let profile = format!("--user-data-dir={}", self.home.path().join("profile").display());
        let switches = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--window-size=1280,800",
            &profile,
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": switches },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let opened = self.ask("POST", "/session", &capabilities);
        self.session = opened["sessionId"].as_str().unwrap().to_owned();
        self.pid = opened["capabilities"]["goog:processID"].as_u64().unwrap();
    }

    /// Opens a local page, and waits until it is loaded.
    pub fn visit(&self, page: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", page.display()) }));
    }

    /// Runs a function body in the page, and returns its result.
    pub fn eval(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page.
    pub fn wait_until(&self, expression: &str) {
        eventually(expression, || self.eval(&format!("return Boolean({expression});")) == true);
    }

    /// Clicks in the middle of the first element that this CSS selector matches.
    pub fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let element = found[ELEMENT].as_str().unwrap();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Presses and releases a key.
    pub fn press(&self, key: char) {
        let actions =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }),
        );
    }

    /// The messages in the console since the last call.
    pub fn console(&self) -> Vec<String> {
        let messages = self.post("/se/log", &json!({ "type": "browser" }));
        messages.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Sends a command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// Emulates a phone or a projector of this size, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Emulates the color scheme `dark` or `light`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
        self.wait_until(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// Sends a request that must succeed, and returns the value of its answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = exchange(self.port, method, path, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = exchange(self.port, "DELETE", &format!("/session/{}", self.session), "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // chromedriver may not have ended the browser. The process is still the browser if its
        // command line names the directory.
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*self.home.path().to_string_lossy()) {
            let _ =
                program("kill").arg("-9").arg(self.pid.to_string()).stderr(Stdio::null()).status();
        }
    }
}

/// The port that chromedriver prints.
fn port(output: &mut impl BufRead) -> u16 {
    let mut all = String::new();
    loop {
        let from = all.len();
        assert_ne!(output.read_line(&mut all).unwrap(), 0, "chromedriver ended: {all}");
        if let Some((_, port)) = all[from..].split_once("started successfully on port ") {
            return port.trim_end().trim_end_matches('.').parse().unwrap();
        }
    }
}

/// Sends one request on a connection of its own, and returns status and body (RFC 9112).
fn exchange(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = BufReader::new(connection);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut length = 0;
    loop {
        line.clear();
        if answer.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body)?;
    Ok((status, serde_json::from_slice(&body)?))
}
