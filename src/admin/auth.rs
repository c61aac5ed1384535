//! HTTP's basic authentication, as HAProxy's `stats auth`. Admin thread.

use crate::config::model::Credentials;
use hyper::header::{AUTHORIZATION, HeaderMap};

/// Whether `headers` match one of `accepted`; always if that is empty.
pub(super) fn is_authorized(accepted: &[Credentials], headers: &HeaderMap) -> bool {
    if accepted.is_empty() {
        return true;
    }
    let Some(given) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let Some((scheme, token)) = given.split_once(' ') else {
        return false;
    };
    let token = token.trim().as_bytes();
    // All are compared to their end, so that the time tells nothing of a password except its length.
    let matches = accepted
        .iter()
        .filter(|one| same(base64(one.0.as_bytes()).as_bytes(), token));
    scheme.eq_ignore_ascii_case("basic") && matches.count() > 0
}

fn same(left: &[u8], right: &[u8]) -> bool {
    let differences = left
        .iter()
        .zip(right)
        .fold(0, |all, (left, right)| all | (left ^ right));
    left.len() == right.len() && differences == 0
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            if index <= group.len() {
                let letter = bits >> (18 - 6 * index) & 63;
                text.push(char::from(LETTERS[letter as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let expected = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        assert_eq!(cases.map(|text| base64(text.as_bytes())), expected);
    }

    #[test]
    fn only_the_right_password_is_let_in() {
        let accepted = [
            Credentials("admin:a:b".into()),
            Credentials("guest:x".into()),
        ];
        let asks = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            is_authorized(&accepted, &headers)
        };
        assert!(asks("Basic YWRtaW46YTpi") && asks("basic  Z3Vlc3Q6eA=="));
        for wrong in [
            "Basic YWRtaW46YTpj",
            "Basic YWRtaW4",
            "Bearer YWRtaW46YTpi",
            "Basic",
            "Basic ",
        ] {
            assert!(!asks(wrong), "{wrong}");
        }
        assert!(!is_authorized(&accepted, &HeaderMap::new()));
        assert!(is_authorized(&[], &HeaderMap::new()));
    }
}
