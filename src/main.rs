use std::process::ExitCode;

fn main() -> ExitCode {
    synecho::cli::main()
}
