//! The `backstop` program: `backstop run` is the watchdog, everything else talks to one that runs.

use std::process::ExitCode;

use backstop::cli;

/// Threads that run tasks. The daemon waits nearly all the time, and every thread costs memory on a host that is
/// there for other programs; two, so that one busy task never holds up the core.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        // Somebody installed one already: it serves as well.
        tracing::debug!("a TLS provider was installed before");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(cli::execute(cli));
            // A read of standard input cannot be interrupted: it must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => cli::report(&anyhow::Error::new(error).context("the runtime could not be started")),
    }
}
