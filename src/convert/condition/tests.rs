use super::*;

fn process(name: &str) -> Option<String> {
    (name == "SET").then(|| "yes".to_owned())
}

fn value(text: &str) -> Result<bool, String> {
    holds(text, &Environment::new(&process, &[]))
}

#[test]
fn conditions_are_evaluated_as_haproxy_does() {
    for (text, meant) in [
        ("", false),
        ("0", false),
        ("1", true),
        ("-1", true),
        ("0x10", true),
        ("!0", true),
        ("! ! 1", true),
        ("defined(SET)", true),
        ("defined(OTHER)", false),
        ("feature(EPOLL)", true),
        ("feature(OPENSSL)", false),
        ("version_atleast(2.4-dev19)", true),
        ("version_atleast(9.0)", false),
        ("version_before(2.4)", false),
        ("version_before(3.0.1)", true),
        ("streq(a,a)", true),
        ("strneq(\"a b\",a)", true),
        ("strstr(abc,b)", true),
        ("enabled(EPOLL)", true),
        ("1 && 0 || 1", true),
        ("1 && (0 || 0)", false),
        ("defined(SET) && !feature(OPENSSL)", true),
        ("streq(a\\,b,'a,b')", true),
    ] {
        assert_eq!(value(text), Ok(meant), "{text}");
    }
}

#[test]
fn what_is_no_condition_is_said() {
    for text in [
        "maybe",
        "defined",
        "defined(A",
        "streq(a)",
        "1 2",
        "(1",
        "awslc_api_atleast(1)",
        "openssl_version_atleast(1.1.1)",
        "-",
        "1 &&",
    ] {
        assert!(value(text).is_err(), "{text}");
    }
    assert!(value(&"(".repeat(100_000)).is_err());
    let awslc = value("awslc_api_before(30)").expect_err("refused");
    assert!(awslc.contains("`awslc_api_before`"), "{awslc}");
}
