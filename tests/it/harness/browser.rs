//! A headless Chromium, and the rows of its page.
//!
//! With `RLB_SCREENSHOTS=docs/images` the pictures of the documentation are made again.

use super::eventually::eventually;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest time for a browser to start and render.
pub(crate) const BROWSER_WITHIN: Duration = Duration::from_secs(90);

/// Chromium's options for a run without a screen and without the network's other uses.
pub(crate) const HEADLESS: [&str; 7] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Runs a headless Chromium on `url` and returns what it prints.
pub(crate) fn browse(chromium: &Path, url: &str, arguments: &[&str]) -> String {
    let profile = tempfile::tempdir().expect("a directory for the browser");
    let output = profile.path().join("output");
    let file = std::fs::File::create(&output).expect("a file for its words");
    let mut browser = Command::new(chromium)
        .args(HEADLESS)
        .arg("--hide-scrollbars")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let status = eventually(BROWSER_WITHIN, "the browser is done", || {
        browser.try_wait().expect("its status")
    });
    assert!(status.success(), "{status}");
    std::fs::read_to_string(&output).expect("its words")
}

/// The class and the texts of a row of the page, without tooltips.
pub(crate) fn row(page: &str, id: &str) -> (String, Vec<String>) {
    let mark = format!("id=\"{id}\">");
    let at = page
        .find(&mark)
        .unwrap_or_else(|| panic!("no row {id} in\n{page}"));
    let start = page[..at].rfind("<tr").expect("the row begins");
    let class = page[start..at].split('"').nth(1).expect("a class");
    let line = page[at..].split("</tr>").next().expect("the row ends");
    let cells = line.split("<td").skip(1).map(|cell| {
        let cell = cell.split_once('>').expect("a cell").1;
        let shown = cell.split("<span class=\"tip\">").next().unwrap_or(cell);
        let mut text = String::new();
        let mut inside = false;
        for character in shown.chars() {
            match character {
                '<' => inside = true,
                '>' => inside = false,
                _ if !inside => text.push(character),
                _ => {}
            }
        }
        text
    });
    (class.to_owned(), cells.collect())
}

/// Takes a picture of `url`, `height` pixels high, in light or in dark colours. It is kept only for the
/// documentation.
pub(crate) fn photograph(chromium: &Path, url: &str, name: &str, (height, light): (u32, bool)) {
    let temporary = tempfile::tempdir().expect("a directory");
    let folder = std::env::var_os("RLB_SCREENSHOTS").map_or_else(
        || temporary.path().to_owned(),
        |path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
    );
    let picture = folder.join(format!("{name}.png"));
    let arguments = [
        format!("--screenshot={}", picture.display()),
        format!("--window-size=1500,{height}"),
        format!("--blink-settings=preferredColorScheme={}", u8::from(light)),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    browse(chromium, url, &arguments);
    let bytes = std::fs::read(&picture).expect("the picture");
    assert!(
        bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000,
        "{}",
        bytes.len()
    );
}
