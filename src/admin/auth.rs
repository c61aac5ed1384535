//! HTTP's basic authentication, as HAProxy's `stats auth`. Admin thread.

use crate::config::model::Credentials;
use hyper::header::{AUTHORIZATION, HeaderMap};

/// A request without a valid user and password.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unauthorized;

/// The user among `accepted` whose password `headers` have; `None` if no password is needed, because that is empty.
///
/// # Errors
/// When they have the password of none.
pub(super) fn user<'a>(
    accepted: &'a [Credentials],
    headers: &HeaderMap,
) -> Result<Option<&'a str>, Unauthorized> {
    if accepted.is_empty() {
        return Ok(None);
    }
    let given = headers.get(AUTHORIZATION).ok_or(Unauthorized)?;
    let given = given.to_str().map_err(|_| Unauthorized)?;
    let (scheme, token) = given.split_once(' ').ok_or(Unauthorized)?;
    let token = token.trim().as_bytes();
    // All are compared to their end, so that the time tells nothing of a password except its length.
    let matches = accepted
        .iter()
        .filter(|one| same(base64(one.0.as_bytes()).as_bytes(), token));
    let found = matches.fold(None, |_, one| Some(one));
    let found = found.filter(|_| scheme.eq_ignore_ascii_case("basic"));
    let found = found.ok_or(Unauthorized)?;
    Ok(found.0.split(':').next())
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
            user(&accepted, &headers).map(|user| user.map(str::to_owned))
        };
        assert_eq!(asks("Basic YWRtaW46YTpi"), Ok(Some("admin".into())));
        assert_eq!(asks("basic  Z3Vlc3Q6eA=="), Ok(Some("guest".into())));
        for wrong in [
            "Basic YWRtaW46YTpj",
            "Basic YWRtaW4",
            "Bearer YWRtaW46YTpi",
            "Basic",
            "Basic ",
        ] {
            assert_eq!(asks(wrong), Err(Unauthorized), "{wrong}");
        }
        assert_eq!(user(&accepted, &HeaderMap::new()), Err(Unauthorized));
        assert_eq!(user(&[], &HeaderMap::new()), Ok(None));
    }
}
