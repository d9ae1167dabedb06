//! The pages of the lessons in a browser: they log no error, load nothing from elsewhere, and their
//! slider moves the bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::browser::{Browser, HOME, LEFT, RIGHT};
use crate::support::{LABSH, program, temp_dir, text};

const LANGUAGES: [(&str, &str); 2] = [("en", "en"), ("zh", "zh-CN")];

/// The figure in which two messages are glued together by one recv().
const FIGURE: &str = "#flow-1";

/// Runs `labsh lesson WORDS… --html DIRECTORY`.
fn pages(words: &[&str], place: &Path) {
    let mut labsh = program(LABSH);
    labsh.arg("lesson").args(words).arg("--html").arg(place).stdin(Stdio::null());
    let output = labsh.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// All pages in a directory, which must contain no other files.
fn set(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(
        files.iter().all(|file| file.extension().is_some_and(|end| end == "html")),
        "{files:?}"
    );
    files
}

/// One browser for all checks, since it takes long to start.
#[test]
fn pages_of_lessons_work_in_a_browser() {
    let Some(browser) = Browser::start() else { return };
    let dir = temp_dir();
    for (language, lang) in LANGUAGES {
        let directory = dir.path().join(language);
        pages(&["all", "--lang", language], &directory);
        for page in set(&directory) {
            assert_sound(&browser, &page, lang);
        }
        assert_links_lead_to_pages(&browser, &directory);
        assert_steps_move_the_bytes(&browser, &directory.join("sticky.html"));
    }
    let sticky = dir.path().join("en/sticky.html");
    assert_film_runs_to_the_end(&browser, &sticky);
    assert_blocks_tell_what_they_are(&browser, &sticky);
    assert_headers_are_digits(&browser, &dir.path().join("en/fixed-header.html"));
    assert_what_is_received_stays_text(&browser, &dir.path().join("hostile.html"));
}

/// Binary headers are shown as hexadecimal digits, so that the length prefix is visible.
fn assert_headers_are_digits(browser: &Browser, page: &Path) {
    browser.visit(page);
    let got = browser.eval("return document.querySelector('#flow-2 .got .chunks').textContent;");
    assert!(got.as_str().unwrap().starts_with("A│00000006 13000000 00000001 "), "{got}");
}

/// Checks what holds for every page, on a projector and on a phone, light and dark.
fn assert_sound(browser: &Browser, page: &Path, lang: &str) {
    for (scheme, width, height) in [("light", 1280, 800), ("dark", 390, 844)] {
        browser.resize(width, height);
        browser.prefer(scheme);
        browser.visit(page);
        // A scroll bar takes width on a projector, but not on a phone.
        browser.wait_until(&format!(
            "[innerWidth, document.documentElement.clientWidth].includes({width})"
        ));
        let at = format!("{} {scheme} {width}", page.display());
        assert_eq!(browser.eval("return document.documentElement.lang;"), lang, "{at}");
        let wider = browser.eval(
            "const { scrollWidth, clientWidth } = document.documentElement; \
            return scrollWidth - clientWidth;",
        );
        assert!(wider.as_i64().unwrap() <= 0, "{at}: one must scroll sideways by {wider} pixels");
        let loaded = browser
            .eval("return performance.getEntriesByType('resource').map(entry => entry.name);");
        assert_eq!(loaded, json!([]), "{at}");
        assert_eq!(browser.console(), [""; 0], "{at}");
        assert_legible(browser, scheme, &at);
    }
}

/// Text has a contrast of at least 7:1 (WCAG 2, 1.4.6), and the dark scheme is dark.
fn assert_legible(browser: &Browser, scheme: &str, at: &str) {
    let measured = browser.eval(
        "const light = color => { \
             const [r, g, b] = color.match(/[\\d.]+/g).map(part => part / 255) \
                 .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4); \
             return 0.2126 * r + 0.7152 * g + 0.0722 * b; }; \
         const style = getComputedStyle(document.body); \
         return [light(style.color), light(style.backgroundColor)];",
    );
    let [ink, paper] = [0, 1].map(|index| measured[index].as_f64().unwrap());
    assert_eq!(paper < ink, scheme == "dark", "{at}: {measured}");
    assert!((ink.max(paper) + 0.05) / (ink.min(paper) + 0.05) >= 7.0, "{at}: {measured}");
}

/// The index links to every page, and each page to its neighbours.
fn assert_links_lead_to_pages(browser: &Browser, directory: &Path) {
    let pages = set(directory);
    let mut reached = 0;
    for page in &pages {
        browser.visit(page);
        let links =
            browser.eval("return [...document.links].map(link => link.getAttribute('href'));");
        let links = links.as_array().unwrap();
        assert!(!links.is_empty(), "{}", page.display());
        for link in links {
            let to = directory.join(link.as_str().unwrap());
            assert!(pages.contains(&to), "{} leads to {}", page.display(), to.display());
        }
        if page.ends_with("index.html") {
            reached = links.len();
        }
    }
    assert_eq!(reached, pages.len() - 1);
    browser.visit(&directory.join("index.html"));
    browser.click(".index li:nth-child(5) a");
    browser.wait_until(
        "location.pathname.endsWith('/sticky.html') && document.readyState === 'complete'",
    );
}

/// The state of a figure: the step, bytes in flight, blocks not reached yet, and the three buffers.
fn state(browser: &Browser) -> Value {
    browser.eval(&format!(
        "const figure = document.querySelector('{FIGURE}'); \
         const text = place => figure.querySelector(place + ' .chunks').textContent; \
         return {{ at: Number(figure.dataset.at), held: Number(figure.dataset.held), \
             slider: Number(figure.querySelector('input').value), \
             later: figure.querySelectorAll('.block.later').length, \
             sent: text('.sent'), kernel: text('.kernel'), got: text('.got'), \
             now: figure.querySelector('.now').textContent }};"
    ))
}

/// A number of a figure's state.
fn number(state: &Value, name: &str) -> u64 {
    state[name].as_u64().unwrap_or_else(|| panic!("{name} in {state}"))
}

/// The slider follows keys and the buttons follow the mouse: bytes leave the sender, wait, and are
/// read.
fn assert_steps_move_the_bytes(browser: &Browser, page: &Path) {
    browser.resize(1280, 800);
    browser.visit(page);
    // At first the figure shows the last step.
    let last = state(browser);
    let steps = number(&last, "at");
    assert!(steps >= 3, "{last}");
    assert_eq!((number(&last, "later"), number(&last, "held")), (0, 0), "{last}");
    browser.eval(&format!("document.querySelector('{FIGURE} input').focus();"));
    browser.press(HOME);
    let first = state(browser);
    assert_eq!((number(&first, "at"), number(&first, "held")), (0, 0), "{first}");
    assert!(number(&first, "later") > 0, "{first}");
    let mut before = first;
    let mut most = 0;
    for at in 1..=steps {
        browser.press(RIGHT);
        let now = state(browser);
        assert_eq!((number(&now, "at"), number(&now, "slider")), (at, at), "{now}");
        assert_ne!((&now["now"], &now["held"]), (&before["now"], &before["held"]), "{now}");
        most = most.max(number(&now, "held"));
        before = now;
    }
    assert!(most > 0, "no bytes were ever in flight");
    assert_eq!(before, last);
    browser.press(LEFT);
    assert_eq!(number(&state(browser), "at"), steps - 1);
    browser.click(&format!("{FIGURE} .back"));
    assert_eq!(number(&state(browser), "at"), steps - 2);
    browser.click(&format!("{FIGURE} .forward"));
    browser.click(&format!("{FIGURE} .forward"));
    assert_eq!(state(browser), last);
    assert_eq!(
        browser.eval(&format!("return document.querySelector('{FIGURE} .forward').disabled;")),
        true
    );
    assert_eq!(browser.console(), [""; 0]);
}

/// Play starts at the first step, advances by itself, and stops at the end or on a click.
fn assert_film_runs_to_the_end(browser: &Browser, page: &Path) {
    browser.visit(page);
    let steps = number(&state(browser), "at");
    let playing = format!("document.querySelector('{FIGURE}').dataset.playing");
    let at = format!("Number(document.querySelector('{FIGURE}').dataset.at)");
    // Both clicks in one turn of the event loop, so that no step comes between them.
    let seen = browser.eval(&format!(
        "const play = document.querySelector('{FIGURE} .play'); const seen = [{playing}]; \
         play.click(); seen.push({playing}, {at}); play.click(); seen.push({playing}, {at}); \
         return seen;"
    ));
    assert_eq!(seen, json!(["false", "true", 0, "false", 0]));
    browser.click(&format!("{FIGURE} .play"));
    browser.wait_until(&format!("{at} > 0"));
    browser.wait_until(&format!("{at} === {steps} && {playing} === 'false'"));
}

/// A click on a block selects its call and shows its bytes.
fn assert_blocks_tell_what_they_are(browser: &Browser, page: &Path) {
    browser.visit(page);
    browser.click(&format!("{FIGURE} .block[data-step='1']"));
    let detail = browser.eval(&format!(
        "const detail = document.querySelector('{FIGURE} .detail'); return [detail.hidden, \
         detail.textContent];"
    ));
    assert_eq!((number(&state(browser), "at"), &detail[0]), (1, &json!(false)));
    let detail = detail[1].as_str().unwrap();
    for part in ["send() no. 1: ", "ls -l", "6c 73 20 2d 6c"] {
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
}

/// Output that contains markup, a script, the end of the figure's data and invisible characters is
/// shown as text.
fn assert_what_is_received_stays_text(browser: &Browser, page: &Path) {
    let evil = concat!(
        r"for i in $(seq 90); do printf '</script><b id=evil>\001\033[2J",
        r"<!--<img src=x onerror=alert(1)>'; done",
    );
    pages(&["sticky", "--lang", "en", "--command", evil, "--recv", "256"], page);
    browser.visit(page);
    assert_eq!(browser.eval("return document.querySelectorAll('#evil, img, b[id]').length;"), 0);
    let shown = browser.eval(
        "return [...document.querySelectorAll('pre')].map(element => \
         element.textContent).join('\\n');",
    );
    assert!(
        shown
            .as_str()
            .unwrap()
            .contains(r"</script><b id=evil>\x01\x1b[2J<!--<img src=x onerror=alert(1)>"),
        "{shown}"
    );
    // The figures still work, and show those bytes.
    let figures = browser
        .eval("return document.querySelectorAll('figure.flow .player:not([hidden])').length;");
    assert_eq!(figures, browser.eval("return document.querySelectorAll('figure.flow').length;"));
    let details = browser.eval(
        "const details = []; \
         for (const figure of document.querySelectorAll('figure.flow')) { \
             const slider = figure.querySelector('input'); \
             for (let at = 1; at <= Number(slider.max); at += 1) { \
                 slider.value = at; \
                 slider.dispatchEvent(new Event('input')); \
                 details.push(figure.querySelector('.detail').textContent); \
             } \
         } \
         return details.join('\\n');",
    );
    assert!(
        details.as_str().unwrap().contains(r"\x01\x1b[2J<!--<img src=x onerror=alert(1)>"),
        "{details}"
    );
    assert_eq!(browser.console(), [""; 0]);
}
