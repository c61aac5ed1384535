//! The judgement of the hot paths' guard (`benches/instructions/`). Counting needs valgrind; comparing with the
//! bounds does not.

#[path = "../benches/instructions/bounds.rs"]
mod bounds;

use bounds::{Bounds, SLACK, TOLERANCE, Verdict};

fn bounds() -> Bounds {
    Bounds::parse("[testing]\nsession = 1000.0\nadd = 12.0\n").expect("it is TOML")
}

#[test]
fn more_than_the_tolerance_is_a_regression() {
    let bounds = bounds();
    let judge = |count| bounds.judge("testing", "session", count);
    let edge = 1000.0 * TOLERANCE;
    assert_eq!(judge(1000.0 + edge - 1.0), Verdict::Kept);
    assert_eq!(judge(1000.0 + edge + 1.0), Verdict::Regressed);
    assert_eq!(judge(1000.0 - edge + 1.0), Verdict::Kept);
    assert_eq!(judge(1000.0 - edge - 1.0), Verdict::Improved);
}

#[test]
fn one_instruction_in_a_dozen_is_no_regression() {
    let bounds = bounds();
    let judge = |count| bounds.judge("testing", "add", count);
    assert_eq!(judge(12.0 + SLACK), Verdict::Kept);
    assert_eq!(judge(12.0 + SLACK + 1.0), Verdict::Regressed);
    assert_eq!(judge(12.0 - SLACK - 1.0), Verdict::Improved);
}

#[test]
fn a_profile_without_bounds_judges_nothing() {
    let bounds = bounds();
    assert_eq!(bounds.judge("release", "session", 1e9), Verdict::Unbounded);
    assert_eq!(bounds.judge("testing", "other", 1e9), Verdict::Unbounded);
}

#[test]
fn an_update_is_read_back_and_keeps_the_rest() {
    let mut bounds = bounds();
    bounds.set("testing", "session", 900.04);
    bounds.set("release", "session", 500.0);
    let again = Bounds::parse(&bounds.text()).unwrap();
    assert_eq!(again.get("testing", "session"), Some(900.0));
    assert_eq!(again.get("testing", "add"), Some(12.0));
    assert_eq!(again.get("release", "session"), Some(500.0));
}

/// Every figure of CI has a bound: a missing bound would go unnoticed.
#[test]
fn the_committed_bounds_are_complete() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
    let bounds = Bounds::read(file).unwrap();
    for name in [
        "check",
        "counter-add",
        "pick-3",
        "pick-100",
        "pick-1000",
        "pick-10000",
        "round-trip",
        "session",
        "turns-64",
    ] {
        assert!(bounds.get("release", name).is_some(), "{name}");
    }
}
