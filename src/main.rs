//! The `rlb` program. Everything is in the library, so that tests and benches can use it.

fn main() -> std::process::ExitCode {
    rlb::cli::main()
}
