//! The program: from arguments to an exit code. It holds no logic.

use std::process::ExitCode;

use olla::cli::{self, Command, CommandOutput, Parsed};
use olla::config::Env;
use olla::serve;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let env = Env::process();
    match cli::parse(std::env::args_os().skip(1), &env) {
        Parsed::Done(outcome) => print(&outcome),
        Parsed::Run(command) => match command {
            Command::Serve(options) => ExitCode::from(serve::serve(&options, env)),
            Command::Demo(demo) => ExitCode::from(serve::demo(&demo, env)),
            Command::Check(options) => print(&serve::check(&options, &env)),
            Command::Import { file } => print(&serve::import(&file, &env)),
            Command::Show(show) => print(&serve::show(&show, &env)),
        },
    }
}

fn print(outcome: &CommandOutput) -> ExitCode {
    use std::io::Write;
    // A closed pipe is no failure of the command.
    let _ = std::io::stdout().write_all(outcome.stdout.as_bytes());
    let _ = std::io::stderr().write_all(outcome.stderr.as_bytes());
    ExitCode::from(outcome.code)
}
