//! The queues between a node and its disk, and the thread that works them off.
//!
//! Jobs that arrive while a round of writes and syncs runs form the next round: that is group commit. The queues have no
//! bound of their own because the node bounds what it puts in: appends by the windows of its groups and by its limit of
//! bytes on their way to the disk, reads by one per answer owed.

use std::collections::VecDeque;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use varve_storage::{Completion, Disk, Job, Store};

/// Bytes of appends in one round: the most that a read or a vote can have to wait for, and enough to keep the disk busy.
const ROUND_BYTES_MAX: usize = 16 << 20;

/// A node's end of the queues.
pub struct DiskLink {
    jobs: mpsc::UnboundedSender<Vec<Job>>,
    completions: mpsc::UnboundedReceiver<Vec<Completion>>,
    /// Of the last round, those that were not taken yet.
    waiting: VecDeque<Completion>,
}

impl DiskLink {
    /// Waits for the next completion; `None` if the disk's end is gone.
    pub async fn completion(&mut self) -> Option<Completion> {
        while self.waiting.is_empty() {
            self.waiting.extend(self.completions.recv().await?);
        }
        self.waiting.pop_front()
    }

    /// The next completion of a round that has ended already.
    pub fn try_completion(&mut self) -> Option<Completion> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.completions.try_recv().ok()?);
        }
        self.waiting.pop_front()
    }

    /// Queues jobs; false if the disk's end is gone.
    #[must_use]
    pub fn submit(&self, jobs: Vec<Job>) -> bool {
        self.jobs.send(jobs).is_ok()
    }
}

/// The disk's end of the queues.
pub struct DiskWorker {
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    completions: mpsc::UnboundedSender<Vec<Completion>>,
}

/// Makes the queues.
#[must_use]
pub fn link() -> (DiskLink, DiskWorker) {
    let (jobs, jobs_in) = mpsc::unbounded_channel();
    let (completions, completions_in) = mpsc::unbounded_channel();
    let waiting = VecDeque::new();
    (DiskLink { jobs, completions: completions_in, waiting }, DiskWorker { jobs: jobs_in, completions })
}

impl DiskWorker {
    /// Waits for jobs and takes a round of them; `None` if the node is gone and all its jobs are done.
    pub async fn next_round(&mut self) -> Option<Vec<Job>> {
        let first = self.jobs.recv().await?;
        Some(self.fill_round(first))
    }

    /// Reports a round as done; false if the node is gone.
    #[must_use]
    pub fn report(&self, completions: Vec<Completion>) -> bool {
        completions.is_empty() || self.completions.send(completions).is_ok()
    }

    /// Works until the node is gone.
    pub fn run<D: Disk>(mut self, store: &mut Store<D>) {
        while let Some(first) = self.jobs.blocking_recv() {
            let round = self.fill_round(first);
            if !self.report(store.execute(round)) {
                break;
            }
        }
    }

    fn fill_round(&mut self, mut round: Vec<Job>) -> Vec<Job> {
        let mut bytes: usize = round.iter().map(append_bytes).sum();
        while bytes < ROUND_BYTES_MAX {
            let Ok(more) = self.jobs.try_recv() else { break };
            bytes += more.iter().map(append_bytes).sum::<usize>();
            round.extend(more);
        }
        round
    }
}

fn append_bytes(job: &Job) -> usize {
    match job {
        Job::Append { prepares, .. } => prepares.iter().map(|prepare| prepare.header().total_size()).sum(),
        Job::Write { prepares, .. } | Job::Mend { prepares, .. } | Job::Patch { prepares, .. } => {
            prepares.iter().map(|prepare| prepare.header().total_size()).sum()
        }
        Job::Sync { .. }
        | Job::Truncate { .. }
        | Job::SaveSuperblock(_)
        | Job::SaveFounders(_)
        | Job::Read { .. }
        | Job::GiveUpHoles { .. }
        | Job::GiveUpLog { .. }
        | Job::LetGo { .. }
        | Job::LetGoWith { .. }
        | Job::TakeSnapshot { .. }
        | Job::ReadSnapshot { .. }
        | Job::SaveResumePoint { .. }
        | Job::Survey { .. }
        | Job::Scrub { .. }
        | Job::ScrubShared
        | Job::DeleteGroup { .. }
        | Job::Resume => 0,
    }
}

/// Starts a thread that owns the store.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn<D: Disk>(mut store: Store<D>) -> std::io::Result<(DiskLink, JoinHandle<()>)> {
    let (link, worker) = link();
    let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || worker.run(&mut store))?;
    Ok((link, thread))
}
