//! A thread for decoders whose calls may take long: Brotli fills its window of up to 16 MiB before
//! it returns a byte, which takes some 80 ms, and nothing in its interface makes that shorter.
//!
//! The thread is started for the first such body. Each core decodes one of them at a time, so their
//! windows are bounded by the number of cores.

use std::sync::OnceLock;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::decoding::{BodyDecoder, Decoded, Undecodable};
use crate::part;
use crate::rt::Bell;

/// The thread, shared by all cores.
#[derive(Debug, Default)]
pub(in crate::core) struct Aside(OnceLock<Option<Sender<Job>>>);

/// One piece of a body. It travels to the thread and back.
pub(super) struct Work {
    pub(super) decoder: Box<dyn BodyDecoder>,
    /// The next bytes of the body.
    pub(super) input: Vec<u8>,
    /// Room for what is decoded; all of it is overwritten.
    pub(super) output: Vec<u8>,
}

/// The work that is done, and how far it went.
pub(super) type WorkDone = (Work, Result<Decoded, Undecodable>);

struct Job {
    work: Work,
    done: Sender<WorkDone>,
    /// Of the core that waits.
    bell: Bell,
}

impl Aside {
    /// Begins a piece; the bell rings when it is done. `None` if there is no thread for it.
    pub(super) fn begin(&self, work: Work, bell: &Bell) -> Option<Receiver<WorkDone>> {
        let jobs = self.0.get_or_init(start).as_ref()?;
        let (done, outcome) = bounded(1);
        let bell = bell.clone();
        jobs.send(Job { work, done, bell }).ok()?;
        Some(outcome)
    }
}

/// The queue holds at most one job of each core.
fn start() -> Option<Sender<Job>> {
    let (jobs, queue) = unbounded::<Job>();
    let run = move || {
        for job in queue {
            let Job {
                mut work,
                done,
                bell,
            } = job;
            let outcome = work.run();
            // A core that has ended does not wait.
            let _ = done.send((work, outcome));
            bell.ring();
        }
    };
    let thread = std::thread::Builder::new().name("decoder".to_owned());
    thread.spawn(run).ok().map(|_| jobs)
}

impl Work {
    /// Decodes until the room is full or the decoder does nothing more.
    fn run(&mut self) -> Result<Decoded, Undecodable> {
        let (mut read, mut written) = (0, 0);
        loop {
            let input = part::rest(&self.input, read);
            let room = self.output.get_mut(written..).unwrap_or_default();
            let step = self.decoder.decode(input, room)?;
            read += step.read;
            written += step.written;
            if written == self.output.len() || (step.read == 0 && step.written == 0) {
                return Ok(Decoded { read, written });
            }
        }
    }
}
