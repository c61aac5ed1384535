use super::*;
use std::collections::HashSet;

/// A word has one row at its place, and none where a key is declared for it there.
#[test]
fn a_word_stands_once() {
    let mut seen = HashSet::new();
    for row in table() {
        assert!(!row.say.is_empty() && !row.say.ends_with('.'), "{row:?}");
        for word in row.words {
            assert!(seen.insert((row.place, word)), "{word} stands twice");
        }
    }
}

/// A row that says that rlb does not have something is gone, or says something else, once there is a
/// key for it.
#[test]
fn no_word_with_a_key_is_not_supported_yet() {
    let index = Index::shared();
    let lacks = |row: &Words| {
        matches!(
            row.becomes,
            Becomes::NeedsAllowDegraded | Becomes::Missing | Becomes::NoTrafficDependsOnIt
        )
    };
    let wrong: Vec<String> = declared_at()
        .filter_map(|(place, word, key)| {
            let row = index.find(place, word).filter(|row| lacks(row))?;
            let text = format!(
                "{place:?} {word}: `{key}` is a key, and its row says: {}",
                row.say
            );
            Some(text)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let places: HashSet<Place> = declared_at().map(|(place, ..)| place).collect();
    assert_eq!(
        places.len(),
        5,
        "each place but that of sections: {places:?}"
    );
}

/// `tests/convert/words.txt` has the words of HAProxy 3.5, as `haproxy -dKall` and its manual list
/// them.
#[test]
fn every_word_of_haproxys_is_known() {
    let declared: HashSet<&str> = keys::tables()
        .iter()
        .flat_map(|table| table.keys.iter().flat_map(|listed| listed.key.haproxy))
        .copied()
        .collect();
    let index = Index::shared();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/convert/words.txt");
    let list = std::fs::read_to_string(path).expect("the list");
    let mut unknown = Vec::new();
    for line in list.lines() {
        let (place, word) = line.split_once(' ').expect("a place and a word");
        let at = match place {
            "global" => Place::Global,
            "proxy" => Place::Proxy,
            "bind" => Place::Bind,
            _ => Place::Server,
        };
        if index.find(at, word).is_none() && !declared.contains(word) {
            unknown.push(line);
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// docs/from-haproxy.md has the tables; `RLB_UPDATE=yes` writes them anew.
#[test]
fn the_document_has_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-haproxy.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let (begin, end) = ("<!-- tables -->\n", "<!-- end of the tables -->\n");
    let (before, rest) = text.split_once(begin).expect("a beginning");
    let (tables, after) = rest.split_once(end).expect("an end");
    if std::env::var_os("RLB_UPDATE").is_some() {
        let whole = format!("{before}{begin}{}{end}{after}", document());
        std::fs::write(path, whole).expect("written");
    } else {
        assert!(
            tables == document(),
            "with RLB_UPDATE=yes it is written anew"
        );
    }
}

#[test]
fn a_whole_word_is_found_before_its_family() {
    let index = Index::shared();
    let find = |place, word| index.find(place, word).map(|row| row.becomes);
    assert_eq!(
        find(Place::Proxy, "tcp-request content reject"),
        Some(Becomes::Missing)
    );
    assert_eq!(
        find(Place::Proxy, "tcp-request content accept"),
        Some(Becomes::NotNeeded)
    );
    assert_eq!(
        find(Place::Global, "tune.bufsize"),
        Some(Becomes::NotNeeded)
    );
    assert_eq!(
        find(Place::Server, "agent-check"),
        Some(Becomes::NeedsAllowDegraded)
    );
    assert_eq!(find(Place::Bind, "weight"), None);
}
