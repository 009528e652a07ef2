//! Direct calls to the kernel on sockets and on the process.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::buf::Buf;

/// Sends what the socket takes at once, from several pieces, without blocking.
///
/// # Errors
/// `WouldBlock` when it takes nothing now; anything else is final for the connection.
pub(super) fn send_now(fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        let sent = if let [part] = parts {
            // SAFETY: pointer and length are of one live slice.
            unsafe { libc::send(fd, part.as_ptr().cast(), part.len(), flags) }
        } else {
            // SAFETY: a msghdr of zeros is a valid empty one.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            // The kernel only reads through the pointer, and `IoSlice` is an iovec by contract.
            message.msg_iov = parts.as_ptr().cast_mut().cast();
            message.msg_iovlen = parts.len();
            // SAFETY: the message names only live slices, for the length of the call.
            unsafe { libc::sendmsg(fd, &raw const message, flags) }
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives what has come, up to the room of the buffer, without blocking: the number of bytes, 0
/// if the peer has ended its side.
///
/// # Errors
/// `WouldBlock` when there is nothing; anything else is final for the connection.
pub(super) fn receive_now(fd: RawFd, buf: &mut Buf) -> io::Result<usize> {
    loop {
        let (room, capacity) = (buf.tail_ptr(), buf.spare());
        // SAFETY: the kernel writes at most `capacity` bytes to the room, which is that large.
        let received = unsafe { libc::recv(fd, room.cast(), capacity, libc::MSG_DONTWAIT) };
        if let Ok(received) = usize::try_from(received) {
            // SAFETY: the kernel has written so many bytes.
            unsafe { buf.added(received) };
            return Ok(received);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The state of a connection on which no bytes are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peek {
    /// No bytes arrived; the connection may be used.
    Silent,
    /// The peer has closed or reset the connection.
    Closed,
    /// Unexpected bytes arrived.
    Bytes,
}

/// Looks at an idle connection without taking anything from it.
pub(super) fn peek(fd: RawFd) -> Peek {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: one byte of room, and a length of one.
    match unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) } {
        0 => Peek::Closed,
        1.. => Peek::Bytes,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Peek::Silent,
        _ => Peek::Closed,
    }
}

/// Ends the read in progress.
pub(super) fn shutdown_read(fd: RawFd) {
    // SAFETY: no memory is involved; a wrong descriptor is an error that is ignored.
    unsafe { libc::shutdown(fd, libc::SHUT_RD) };
}

/// Whether the peer has ended its side or reset the connection, whatever is still unread.
pub(super) fn has_left(fd: RawFd) -> bool {
    let mut ask = libc::pollfd {
        fd,
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one live struct, and a count of one; it does not wait.
    let ready = unsafe { libc::poll(&raw mut ask, 1, 0) };
    ready > 0 && ask.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Ends both directions at once, and with them the read in progress.
pub(super) fn shutdown_both(fd: RawFd) {
    // SAFETY: no memory is involved; a wrong descriptor is an error that is ignored.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Bytes in the socket's send buffer that the peer has not acknowledged; 0 if the kernel does not
/// say.
pub(super) fn unacknowledged(fd: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer to a live one.
    unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Says that nothing more will be sent.
pub(super) fn shutdown_write(fd: RawFd) {
    // SAFETY: as above.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Makes the close of a socket a reset, so that the peer cannot take it for an orderly end.
pub(super) fn reset_on_close(fd: RawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
}

/// Sends small pieces at once, and does not survive an exec.
pub(super) fn prepare(fd: RawFd) {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32);
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// TCP keep-alive probes at this interval.
pub(super) fn keep_alive(fd: RawFd, interval: Duration) {
    let seconds = i32::try_from(interval.as_secs().max(1)).unwrap_or(i32::MAX);
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1_i32);
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &seconds);
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &seconds);
}

fn set<T>(fd: RawFd, level: i32, option: i32, value: &T) {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: pointer and length are of one live value. An option that the kernel does not take
    // leaves the socket as it was.
    unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(value).cast(), len) };
}

/// Lets threads of normal priority go first: `nice` is added to this thread's niceness.
pub(crate) fn lower_priority(nice: i32) {
    // SAFETY: no memory is involved. On Linux 0 is the calling thread, not its process; if the
    // kernel refuses, the priority stays.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// The limits of open files before and after: the soft one is raised to the hard one.
///
/// # Errors
/// The error of the kernel.
pub fn raise_open_files() -> io::Result<(u64, u64)> {
    let mut limit = open_files()?;
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((before, limit.rlim_cur))
}

/// The soft limit of open files. Needs no file, so it works at the limit too.
///
/// # Errors
/// The error of the kernel.
pub fn open_files_limit() -> io::Result<u64> {
    Ok(open_files()?.rlim_cur)
}

fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a live struct of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

/// Grows the kernel's table of this process's open files to `count` entries of eight bytes, or to
/// the limit of open files, in one step. By itself the table doubles whenever it is full. With
/// several threads, every call that opens a file then waits until all processors have passed a
/// quiescent state (`synchronize_rcu`): 10 to 16 ms in which a core accepts and connects nothing.
///
/// # Errors
/// The error of the kernel. The only consequence is that the table grows later.
pub fn reserve_descriptors(count: u32) -> io::Result<()> {
    let any = std::fs::File::open("/dev/null")?;
    let limit = open_files()?.rlim_cur;
    let highest = u64::from(count).min(limit).saturating_sub(1);
    let highest = libc::c_int::try_from(highest).unwrap_or(libc::c_int::MAX);
    // SAFETY: an open descriptor; the duplicate has no other owner.
    let high = unsafe { libc::fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest) };
    if high < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and not used elsewhere.
    drop(unsafe { OwnedFd::from_raw_fd(high) });
    Ok(())
}

/// The offset of the machine's local time from UTC at a moment, in seconds.
pub fn utc_offset_secs(unix_secs: i64) -> i32 {
    let time: libc::time_t = unix_secs;
    // SAFETY: a tm of zeros is a valid one, and is only read when the call has filled it.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live values, and nothing in this process changes its environment.
    let filled = unsafe { libc::localtime_r(&raw const time, &raw mut local) };
    if filled.is_null() {
        return 0;
    }
    i32::try_from(local.tm_gmtoff).unwrap_or(0)
}

/// The processor time that the calling thread has used; zero if the kernel does not say.
pub fn thread_cpu_time() -> Duration {
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one struct to a live one.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    let (secs, nanos) = (u64::try_from(used.tv_sec), u32::try_from(used.tv_nsec));
    Duration::new(secs.unwrap_or(0), nanos.unwrap_or(0))
}

/// The CPUs that this process may use, in order; none if the kernel does not say.
pub fn cpus() -> Vec<usize> {
    match core_affinity::get_core_ids() {
        Some(cores) => cores.iter().map(|core| core.id).collect(),
        None => Vec::new(),
    }
}

/// Keeps the calling thread on one CPU; false when the system does not allow it.
pub(crate) fn pin_to(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// The descriptor of anything that has one.
pub(super) fn fd_of(of: &impl AsRawFd) -> RawFd {
    of.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn the_table_of_open_files_is_large_before_it_is_needed() {
        reserve_descriptors(3000).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: u32 = size.unwrap().trim().parse().unwrap();
        let limit = open_files().unwrap().rlim_cur;
        assert!(u64::from(size) >= limit.min(3000), "{size}");
    }

    #[test]
    fn a_peer_that_has_left_shows_behind_unread_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        let fd = fd_of(&served);
        client.write_all(b"unread").unwrap();
        let mut byte = [0];
        served.peek(&mut byte).unwrap();
        assert!(!has_left(fd), "it is still there");
        client.shutdown(Shutdown::Write).unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while !has_left(fd) {
            assert!(std::time::Instant::now() < limit, "its end never showed");
            std::thread::yield_now();
        }
        assert!(peek(fd) == Peek::Bytes, "nothing was taken");
    }
}
