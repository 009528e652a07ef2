//! The I/O drivers of the gateway.

/// A value of `server.io_driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, and else epoll.
    Auto,
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// As in `server.io_driver`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}
