//! The requests of checks of HTTP: `option httpchk …` and `http-check send …`.

use super::address::escaped;
use super::check_words::{Cursor, Pairs, Read, exact, format, missing, over, text, wrong};
use super::lexer::Word;
use super::toml_string::quote;

/// `http-check send …`: the request, and its comment.
pub(super) fn request(words: &mut Cursor<'_>) -> Read<(Pairs, Option<String>)> {
    let (mut pairs, mut headers, mut comment) = (Pairs::new(), Vec::new(), None);
    while let Some(word) = words.next() {
        let name = &*word.text;
        let pair = match name {
            "meth" => ("method", text(words.value(name)?)?),
            "uri" => ("uri", target(&words.value(name)?.text)?),
            "ver" => ("version", version(&words.value(name)?.text)?),
            "body" => ("body", exact(words.value(name)?)?),
            "comment" => {
                comment = Some(text(words.value(name)?)?);
                continue;
            }
            "hdr" => {
                let (of, value) = (words.value(name)?, words.value(name)?);
                push_header(&mut headers, &of.text, value)?;
                continue;
            }
            "uri-lf" | "body-lf" => return missing("checks ask for what is fixed"),
            _ => return wrong(format!("`send` has no `{name}`")),
        };
        over(&mut pairs, vec![pair]);
    }
    if !headers.is_empty() {
        pairs.push(("headers", table(&headers)));
    }
    Ok((pairs, comment))
}

/// Adds a header. As in HAProxy those that follow from the body are left out.
fn push_header(headers: &mut Vec<(String, String)>, name: &str, value: &Word) -> Read<()> {
    let own = ["content-length", "transfer-encoding"];
    if own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Ok(());
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return wrong(format!("`{name}` is no name of a header"));
    }
    if headers.iter().any(|(known, _)| known == name) {
        return missing("checks send one header of a name");
    }
    headers.push((name.to_owned(), format(value)?));
    Ok(())
}

fn table(headers: &[(String, String)]) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let pairs = headers.iter().map(|(name, value)| {
        let name = if name.bytes().all(bare) {
            name.clone()
        } else {
            quote(name)
        };
        format!("{name} = {value}")
    });
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

fn target(uri: &str) -> Read<String> {
    if uri.is_empty() || uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return missing(format!("`{uri}` is not one path"));
    }
    Ok(quote(&escaped(uri)))
}

fn version(text: &str) -> Read<String> {
    if ["HTTP/1.0", "HTTP/1.1"].contains(&text) {
        Ok(quote(text))
    } else {
        missing(format!("checks do not speak `{text}`"))
    }
}

/// What stands behind `option httpchk`: `[URI]`, or `METHOD URI [VERSION [HOST]]`. Headers and a body may hide behind the
/// version, and the version in the URI.
pub(super) fn request_line(words: &[Word]) -> Read<Pairs> {
    let word = |index: usize| words.get(index).map(|word| &*word.text);
    if words.len() > 4 {
        return wrong("`option httpchk` has a method, a path, a version and a host");
    }
    let mut pairs = Pairs::new();
    let (method, uri) = match (word(0), word(1)) {
        (Some(method), Some(uri)) => (Some(method), Some(uri)),
        (uri, _) => (None, uri),
    };
    if let Some(method) = method {
        pairs.push(("method", quote(method)));
    }
    let Some(uri) = uri else { return Ok(pairs) };
    let (uri, hidden) = match uri.split_once(' ') {
        Some((uri, hidden)) => (uri, Some(hidden)),
        None => (uri, None),
    };
    pairs.push(("uri", target(uri)?));
    let mut headers = Vec::new();
    if let Some(rest) = hidden.or(word(2)) {
        let (head, body) = match rest.split_once("\r\n\r\n") {
            Some((head, body)) => (head, body),
            None => (rest, ""),
        };
        let mut lines = head.split("\r\n");
        pairs.push(("version", version(lines.next().unwrap_or_default().trim())?));
        for line in lines.filter(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                return wrong(format!("`{line}` is no header"));
            };
            push_header(&mut headers, name.trim(), &Word::plain(value.trim(), 1))?;
        }
        if !body.is_empty() {
            pairs.push(("body", text(&Word::plain(body, 1))?));
        }
    }
    if let Some(host) = words.get(3) {
        push_header(&mut headers, "Host", host)?;
    }
    if !headers.is_empty() {
        pairs.push(("headers", table(&headers)));
    }
    Ok(pairs)
}
