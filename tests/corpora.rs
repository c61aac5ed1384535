//! The fuzz targets without a fuzzer: every file of the committed corpora is replayed, and every target is a
//! program of `fuzz/`. Whether `fuzz/` compiles under libFuzzer is checked by `tests/fuzz`.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time for one input, also in a build without optimisation.
const INPUT_MAX: Duration = Duration::from_secs(10);

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string())
        .map(|name| name.expect("a UTF-8 name"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_input_of_the_corpora_is_taken_in_time() {
    for (name, target) in targets::TARGETS {
        let folder = fuzz().join("corpus").join(name);
        let inputs = names(&folder);
        assert!(inputs.len() > 5, "{name} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::read(folder.join(&input)).expect("an input");
            let begun = Instant::now();
            if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
                eprintln!("fuzz/corpus/{name}/{input}");
                std::panic::resume_unwind(panic);
            }
            let took = begun.elapsed();
            assert!(took < INPUT_MAX, "fuzz/corpus/{name}/{input}: {took:?}");
        }
    }
}

/// A target that is not a program, or a corpus that no target reads, would never be run.
#[test]
fn every_target_has_a_program_and_a_corpus() {
    let wanted: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&fuzz().join("corpus")), wanted);
    let programs: Vec<String> = wanted.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), programs);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest");
    for name in wanted {
        let path = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(path).expect("the program");
        let call = format!("fuzz_target!(|bytes: &[u8]| targets::{name}(bytes));");
        assert!(text.contains(&call), "{name}.rs does not call its target");
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(
            manifest.contains(&path),
            "{name} is no program in Cargo.toml"
        );
    }
}
