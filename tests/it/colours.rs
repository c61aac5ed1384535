//! The colours of the page as a browser computes them, against HAProxy's, and what is visible in a narrow
//! window. Needs Chromium (see [`needs`]).

use crate::dashboard::{Fixture, fixture};
use crate::harness::browser::browse;
use crate::harness::needs;
use std::collections::HashMap;
use std::path::Path;

/// HAProxy's class, rlb's class, and the colour in light and dark: those of `stats_dump_html_head` in HAProxy's
/// `src/stats-html.c`, the same from 2.6 to 3.5. The exceptions are dark colours that people cannot distinguish
/// there (fault 31): servers going up, backups, and servers that are not checked.
const COLOURS: [(&str, &str, &str, &str); 17] = [
    ("frontend", "frontend", "#e8e8d0", "#2f3437"),
    ("backend", "backend", "#e8e8d0", "#2f3437"),
    ("active_down", "active_down", "#ff9090", "#760000"),
    ("active_going_up", "active_going_up", "#ffd020", "#c8a400"),
    (
        "active_going_down",
        "active_going_down",
        "#ffffa0",
        "#6c6c00",
    ),
    ("active_up", "active_up", "#c0ffc0", "#165900"),
    ("active_nolb", "active_nolb", "#20a0ff", "#006ab9"),
    ("active_draining", "active_draining", "#20a0ff", "#006ab9"),
    ("active_no_check", "active_no_check", "#e0e0e0", "#5a6064"),
    ("backup_down", "backup_down", "#ff9090", "#760000"),
    ("backup_going_up", "backup_going_up", "#ff80ff", "#7f007f"),
    (
        "backup_going_down",
        "backup_going_down",
        "#c060ff",
        "#580092",
    ),
    ("backup_up", "backup_up", "#b0d0ff", "#1c4e63"),
    ("backup_nolb", "backup_nolb", "#90b0e0", "#3b3f8f"),
    ("backup_draining", "backup_draining", "#cc9900", "#a37a00"),
    ("backup_no_check", "backup_no_check", "#e0e0e0", "#5a6064"),
    ("maintain", "maintain", "#c07820", "#9a601a"),
];

/// Rows of the page and HAProxy's class of such a row.
const ROWS: [(&str, &str); 12] = [
    ("states/Frontend", "frontend"),
    ("states/Backend", "backend"),
    ("states/act-up", "active_up"),
    ("states/act-going-down", "active_going_down"),
    ("states/act-going-up", "active_going_up"),
    ("states/act-down", "active_down"),
    ("states/act-maint-cfg", "maintain"),
    ("states/act-weight0", "active_draining"),
    ("states/act-nocheck", "active_no_check"),
    ("states/bck-up", "backup_up"),
    ("states/bck-going-down", "backup_going_down"),
    ("states/bck-down", "backup_down"),
];

/// Appended to the page: writes a line for each row with every background of its cells, and one for each class
/// in a row of its own, in the browser's `rgb(…)`.
const SCRIPT: &str = r#"<pre id="grounds"></pre><script>
function ground(node) {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "none";
}
let said = "";
const row = (name, tr) => {
  const found = new Set(Array.from(tr.querySelectorAll("td"), ground));
  said += "ground " + name + " = " + Array.from(found).join(" ") + "\n";
};
for (const tr of document.querySelectorAll(".rows tr[id]")) row(tr.id, tr);
const body = document.querySelector(".rows tr[id]").parentElement;
for (const name of CLASSES) {
  const tr = document.createElement("tr");
  tr.className = name;
  tr.appendChild(document.createElement("td"));
  body.appendChild(tr);
  row("." + name, tr);
}
document.getElementById("grounds").textContent = said;
</script></body>"#;

/// The background of each row and each class, in light or in dark colours.
fn grounds(chromium: &Path, page: &str, light: bool) -> HashMap<String, String> {
    let classes: Vec<&str> = COLOURS.iter().map(|it| it.1).collect();
    let script = SCRIPT.replace("CLASSES", &format!("{classes:?}"));
    assert!(page.contains("</body>"), "{page}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("page.html");
    std::fs::write(&file, page.replace("</body>", &script)).expect("written");
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(light));
    let url = format!("file://{}", file.display());
    let dom = browse(chromium, &url, &["--dump-dom", &scheme]);
    let lines = dom.lines().filter_map(|line| {
        let (_, line) = line.split_once("ground ")?;
        line.split_once(" = ")
    });
    lines
        .map(|(name, colours)| (name.to_owned(), colours.to_owned()))
        .collect()
}

/// `#rrggbb` as a browser computes it.
fn rgb(hex: &str) -> String {
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    format!("rgb({}, {}, {})", part(1), part(3), part(5))
}

#[test]
fn every_state_has_haproxys_colour() {
    let Some(chromium) = needs::program("chromium") else {
        return;
    };
    let Fixture { rlb, peers } = fixture();
    let (status, page) = rlb.http_get("/;norefresh").expect("answers");
    assert_eq!(status, 200);
    for light in [true, false] {
        let found = grounds(&chromium, &page, light);
        let colour =
            |(.., bright, dark): &(&str, &str, &str, &str)| rgb(if light { bright } else { dark });
        for one in &COLOURS {
            let seen = found.get(&format!(".{}", one.1));
            assert_eq!(seen, Some(&colour(one)), "class {}, light: {light}", one.1);
        }
        for (id, class) in ROWS {
            let one = COLOURS.iter().find(|it| it.0 == class).expect("a class");
            assert_eq!(found.get(id), Some(&colour(one)), "{id}, light: {light}");
        }
    }
    rlb.stop_after(peers);
}

/// Appended to the page: writes the positions of the name and the status of some rows.
const PLACES: &str = r#"<pre id="places"></pre><script>
let said = "";
for (const id of IDS) {
  const row = document.getElementById(id);
  for (const cell of [row.firstElementChild, row.querySelector(".status")]) {
    const box = cell.getBoundingClientRect();
    const inside = box.left >= 0 && box.right <= innerWidth && box.width > 10;
    said += "seen: " + id + " = " + inside + " " + cell.textContent.length + "\n";
  }
}
document.getElementById("places").textContent = said + "seen: width = " + innerWidth + "\n";
</script></body>"#;

/// Fault 31: the status is the 23rd of 31 columns.
#[test]
fn fault_31_names_and_status_are_in_sight_in_a_narrow_window() {
    let Some(chromium) = needs::program("chromium") else {
        return;
    };
    let Fixture { rlb, peers } = fixture();
    let (_, page) = rlb.http_get("/;norefresh").expect("answers");
    let ids = [
        "states/act-down",
        "states/act-up",
        "states/Backend",
        "fe/Frontend",
    ];
    let script = PLACES.replace("IDS", &format!("{ids:?}"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("page.html");
    std::fs::write(&file, page.replace("</body>", &script)).expect("written");
    let url = format!("file://{}", file.display());
    let dom = browse(&chromium, &url, &["--dump-dom", "--window-size=700,900"]);
    let places: Vec<&str> = dom
        .lines()
        .take_while(|line| !line.contains("<script>"))
        .filter_map(|line| line.split_once("seen: ").map(|(_, seen)| seen))
        .collect();
    assert_eq!(places.len(), 2 * ids.len() + 1, "{dom}");
    let width = places.iter().find_map(|it| it.strip_prefix("width = "));
    let width = width.and_then(|it| it.trim_end_matches("</pre>").parse::<u32>().ok());
    assert!(width.is_some_and(|it| it <= 700), "{places:?}");
    let hidden = places.iter().filter(|it| it.contains(" = false "));
    assert_eq!(hidden.count(), 0, "{places:?}");
    rlb.stop_after(peers);
}
