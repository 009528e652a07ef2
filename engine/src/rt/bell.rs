//! A bell that one thread rings to wake another. It carries no data: the data is already
//! where the woken thread reads it.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use monoio::io::AsyncReadRent;

/// The end that is rung, from any thread.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wire: UnixStream,
    /// Rung and not yet received: ringing again has no effect.
    rung: AtomicBool,
}

/// The receiving end, not yet on its thread.
#[derive(Debug)]
pub struct Listening {
    wire: UnixStream,
    bell: Bell,
}

impl Bell {
    /// Makes both ends.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<(Self, Listening)> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let bell = Self(Arc::new(Inner {
            wire: near,
            rung: AtomicBool::new(false),
        }));
        Ok((bell.clone(), Listening { wire: far, bell }))
    }

    /// Wakes the other thread. Costs a system call unless an earlier wake-up is still pending.
    pub fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // A full socket has rung already; a closed one has no listener.
            let _ = (&self.0.wire).write(&[1]);
        }
    }
}

impl Listening {
    /// Calls `on_ring` after each ring, as long as the bell exists.
    ///
    /// # Errors
    /// When the driver cannot take the wire.
    pub async fn listen(self, mut on_ring: impl FnMut()) -> io::Result<()> {
        let mut wire = monoio::net::UnixStream::from_std(self.wire)?;
        let mut buf = vec![0_u8; 64];
        loop {
            let (result, back) = wire.read(buf).await;
            buf = back;
            if result? == 0 {
                return Ok(());
            }
            // Before looking for news: what comes from now on rings again.
            self.bell.0.rung.store(false, Ordering::Release);
            on_ring();
        }
    }
}
