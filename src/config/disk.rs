//! Reading the files of a configuration. The only part of `config` that opens one.

use std::io::Read;
use std::path::Path;

/// The text of a file of at most `max` bytes, or why not.
pub(super) fn text(path: &Path, max: u64) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max {
        return Err(format!("it is larger than {max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .split(|byte| *byte == b'\n')
            .count();
        format!("it is not UTF-8 in line {line}")
    })
}
