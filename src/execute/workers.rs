//! The worker processes of one machine: how many share its cores, how they start, and how they end.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

use tch::Device;

use super::{RunOutcome, RunRequest, walk};
use crate::{
    error::{Error, Result},
    progress::Progress,
};

/// How the cores of a machine are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreShares {
    /// The first process and its workers.
    pub processes: usize,
    /// Threads of each process.
    pub threads: usize,
}

/// Gives this process its share of the cores, which libtorch and rayon would both take whole. It has to be called
/// before any work: the pools of threads keep the size that they begin with.
pub fn share_cores(device: Device, jobs: Option<u16>, threads: Option<u16>) -> CoreShares {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shares = shares(cores, device.is_cuda(), jobs, threads);
    tch::set_num_threads(shares.threads as i32);
    // A pool that exists already keeps its size.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(shares.threads).build_global();
    shares
}

/// Small networks gain little from a second thread and nearly everything from a second process, but each process takes
/// memory of its own. On the CPU up to four processes start, as many as leave the fewest cores idle.
fn shares(cores: usize, cuda: bool, jobs: Option<u16>, threads: Option<u16>) -> CoreShares {
    const GREATEST: usize = 4;
    let usual = match threads {
        _ if cuda => 1,
        Some(threads) => (cores / usize::from(threads)).clamp(1, GREATEST),
        None => (2..=GREATEST.min(cores)).max_by_key(|jobs| (cores / jobs * jobs, *jobs)).unwrap_or(1),
    };
    let processes = jobs.map_or(usual, usize::from);
    CoreShares { processes, threads: threads.map_or((cores / processes).max(1), usize::from) }
}

/// Workers to start beside this process.
pub struct LocalWorkers {
    pub count: usize,
    /// The arguments that make this program a worker of the same run.
    pub arguments: Vec<OsString>,
}

/// A started worker. Its standard input stays open as long as this process wants it to live.
struct Worker {
    process: Child,
    lifeline: Option<ChildStdin>,
}

impl Worker {
    /// Workers inherit the environment. Their lines appear among this process's own.
    fn start(arguments: &[OsString], progress: &Progress) -> Result<Self> {
        let program =
            std::env::current_exe().map_err(|e| Error::failure(format!("cannot find this program: {e}")))?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::failure(format!("cannot start another process: {e}")))?;
        if let Some(lines) = process.stderr.take() {
            let progress = progress.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(lines).lines().map_while(std::result::Result::ok);
                lines.for_each(|line| progress.worker_line(&line));
            });
        }
        // Waiting for a process closes its standard input, and so would end it: the input is kept apart.
        let lifeline = process.stdin.take();
        Ok(Self { process, lifeline })
    }

    /// Waits until it has ended, having killed it first where nothing more is wanted of it.
    fn end(mut self, kill: bool) {
        if kill {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
        drop(self.lifeline);
    }
}

/// Walks the plan in this process while the workers do the same: the store's locks share the stages out.
pub(super) fn run(request: &RunRequest, workers: &LocalWorkers) -> Result<RunOutcome> {
    let started: Vec<Worker> = (0..workers.count)
        .map(|_| Worker::start(&workers.arguments, request.progress))
        .collect::<Result<_>>()?;
    let outcome = walk(request);
    let stop = outcome.as_ref().map_or(true, |run| request.options.fail_fast && run.exit_code() != 0);
    started.into_iter().for_each(|worker| worker.end(stop));
    Ok(RunOutcome { with_workers: workers.count > 0, ..outcome? })
}

/// Ends this worker when the process that started it ends, however that happens: its standard input is a pipe that
/// nobody writes to.
pub(super) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out_and_few_are_idle() {
        let shares = |cores, cuda, jobs, threads| {
            let CoreShares { processes, threads } = shares(cores, cuda, jobs, threads);
            (processes, threads)
        };
        for (cores, expected) in
            [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (4, (4, 1)), (6, (3, 2)), (7, (3, 2)), (16, (4, 4))]
        {
            assert_eq!(shares(cores, false, None, None), expected, "{cores}");
        }
        assert_eq!(shares(16, true, None, None), (1, 16));
        assert_eq!(shares(8, false, None, Some(8)), (1, 8));
        assert_eq!(shares(8, false, None, Some(1)), (4, 1));
        assert_eq!(shares(8, false, Some(2), None), (2, 4));
        assert_eq!(shares(2, false, Some(8), None), (8, 1));
    }
}
