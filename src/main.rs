//! The `rlb` program. Everything is in the library, so that tests and benches can use it.

fn main() -> std::process::ExitCode {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    rlb::sys::raw::look_hosts_up_without_modules();
    rlb::cli::main()
}
