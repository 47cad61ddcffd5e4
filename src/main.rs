//! `podgres`: parse the command line, dispatch, exit code. Nothing else.

fn main() -> std::process::ExitCode {
    podgres::cli::main(std::env::args().skip(1).collect())
}
