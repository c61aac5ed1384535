//! Whether a request comes from the page itself, so that no other site can change servers with a browser that has the
//! password or can reach the page. Pure.
//!
//! A browser adds `Origin` to every POST, and `Sec-Fetch-Site` where it trusts the connection. As in HAProxy, `Origin`
//! counts, or `Referer` when there is none, and its host and port must be those of `Host`; a request with neither is
//! that of a script. Unlike there, `Sec-Fetch-Site` counts too.

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN, REFERER};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the page itself, or no browser, has sent a request with these headers.
pub(super) fn is_same(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if !sites.all(|site| site == "same-origin" || site == "none") {
        return false;
    }
    let source = if headers.contains_key(ORIGIN) {
        ORIGIN
    } else {
        REFERER
    };
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host = host.filter(|_| hosts.next().is_none());
    headers.get_all(source).iter().all(|source| {
        let source = source.to_str().ok().and_then(authority);
        let both = source.zip(host);
        both.is_some_and(|(source, host)| source.eq_ignore_ascii_case(host))
    })
}

/// The host and the port of `scheme://user@host:port/…`.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        is_same(&headers)
    }

    /// The answers are those of HAProxy 3.5 to the same requests, but for `sec-fetch-site`.
    #[test]
    fn only_the_page_itself_and_scripts_are_let_in() {
        let host = ("host", "h:1");
        for (line, expected) in [
            (("origin", "http://h:1"), true),
            (("origin", "https://h:1"), true),
            (("origin", "http://H:1"), true),
            (("origin", "http://h:1/x"), true),
            (("origin", "http://evil"), false),
            (("origin", "http://h:2"), false),
            (("origin", "http://h"), false),
            (("origin", "null"), false),
            (("origin", ""), false),
            (("referer", "http://h:1/;norefresh"), true),
            (("referer", "http://evil@h:1/"), true),
            (("referer", "http://h:1@evil/"), false),
            (("referer", "http://evil/h:1"), false),
            (("referer", "http://evil?http://h:1"), false),
            (("referer", "/x"), false),
            (("referer", ""), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "cross-site"), false),
            (("x", "y"), true),
        ] {
            assert_eq!(same(&[host, line]), expected, "{line:?}");
        }
        let origin = ("origin", "http://h:1");
        assert!(same(&[host, origin, ("referer", "http://evil/")]));
        assert!(!same(&[host, origin, ("origin", "http://evil")]));
        assert!(!same(&[host, origin, ("sec-fetch-site", "cross-site")]));
        assert!(!same(&[host, ("host", "evil"), origin]));
        assert!(!same(&[origin]), "without `Host`");
        assert!(same(&[]), "a script of old");
    }
}
