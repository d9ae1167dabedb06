//! A headless Chromium with somebody at it: pages, keys, clicks, sizes, by the WebDriver protocol
//! (W3C) of chromedriver.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, program, temp_dir, tools};

/// How long one answer of chromedriver may take; it has limits of its own, of a minute, that come
/// before this one.
const ANSWER: Duration = Duration::from_secs(180);

/// Keys as WebDriver names them (section 17.4.2).
pub const LEFT: char = '\u{e012}';
pub const RIGHT: char = '\u{e014}';
pub const HOME: char = '\u{e011}';

/// Under which name an element stands in JSON (section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window; it ends with this value.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The browser itself, a child of chromedriver.
    pid: u64,
    /// All that the browser writes anywhere; the path is in its command line.
    home: TempDir,
}

impl Browser {
    /// A browser whose window is 1280×800, or nothing where there is none.
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
        let mut said = BufReader::new(driver.stdout.take().unwrap());
        // From here on, dropping it ends what was started, also if something panics.
        let mut browser = Self { driver, port: 0, session: String::new(), pid: 0, home };
        browser.port = port(&mut said);
        // It must not find its standard output closed.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
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
        let wishes = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": switches },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let opened = self.ask("POST", "/session", &wishes);
        self.session = opened["sessionId"].as_str().unwrap().to_owned();
        self.pid = opened["capabilities"]["goog:processID"].as_u64().unwrap();
    }

    /// Opens a page of this machine, and waits until it is complete.
    pub fn visit(&self, page: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", page.display()) }));
    }

    /// What a function body returns in the page.
    pub fn eval(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page.
    pub fn wait_until(&self, expression: &str) {
        eventually(expression, || self.eval(&format!("return Boolean({expression});")) == true);
    }

    /// A click with the mouse in the middle of the first element that this CSS selector finds, in
    /// view.
    pub fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        let element = found[ELEMENT].as_str().unwrap();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Presses a key, wherever the focus is, and lets it go.
    pub fn press(&self, key: char) {
        let actions =
            json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }),
        );
    }

    /// What the console has said since it was last asked.
    pub fn console(&self) -> Vec<String> {
        let said = self.post("/se/log", &json!({ "type": "browser" }));
        said.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// From now on pages are as on a phone or a projector of this size, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// `dark` or `light`, as the reader's system would have it.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features);
        self.wait_until(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// The value of a successful answer.
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
        // If chromedriver did not end its child: it is still that one if its command line names the
        // directory.
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*self.home.path().to_string_lossy()) {
            let _ =
                program("kill").arg("-9").arg(self.pid.to_string()).stderr(Stdio::null()).status();
        }
    }
}

/// The port on which chromedriver says that it listens.
fn port(said: &mut impl BufRead) -> u16 {
    let mut all = String::new();
    loop {
        let from = all.len();
        assert_ne!(said.read_line(&mut all).unwrap(), 0, "chromedriver ended: {all}");
        if let Some((_, port)) = all[from..].split_once("started successfully on port ") {
            return port.trim_end().trim_end_matches('.').parse().unwrap();
        }
    }
}

/// One request and its answer, by a connection of its own (RFC 9112).
fn exchange(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(ANSWER))?;
    connection.set_write_timeout(Some(ANSWER))?;
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
