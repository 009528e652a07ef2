//! TLS on a [`Socket`]: what is read is ciphertext in a buffer of its own, what the caller gets is
//! what was in it.
//!
//! Sending keeps the promise of a plain socket: bytes are reported as taken when the kernel has
//! their ciphertext. Until then they count as not taken, and the caller, which repeats the call
//! with the same bytes, gets them reported once the rest is sent. So at most one batch is held, and
//! a slow peer causes the same backpressure as without TLS.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustls::Connection;

use super::Socket;
use super::destination::Destination;
use super::sys;
use crate::buf::Buf;
use crate::fault::TlsFault;
use crate::limits::{TLS_READ_BYTES_MAX, TLS_READ_BYTES_START, TLS_SEND_BYTES_MAX};
use crate::part;
use crate::tls::{TlsClient, TlsIdentity, fault_of};

/// The TLS side of one connection.
pub(super) struct Session {
    conn: Connection,
    /// Ciphertext that was read and not processed yet; `None` while it is lent to the read.
    cipher: Option<Buf>,
    /// What the next read fills: large after a full one.
    read_bytes: usize,
    /// Where the pending read puts plaintext.
    armed: Option<Destination>,
    /// Bytes of the caller that are encrypted but not yet reported as taken.
    owed: usize,
    /// The connection can bring nothing more, for this reason.
    failed: Option<io::ErrorKind>,
}

/// The response to a client that speaks HTTP where TLS is expected.
const PLAIN_HTTP_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 38\r\nConnection: close\r\n\r\nThis port speaks https, and only that.";

impl Session {
    fn new(mut conn: Connection) -> Self {
        conn.set_buffer_limit(Some(TLS_SEND_BYTES_MAX));
        Self {
            conn,
            cipher: Some(Buf::default()),
            read_bytes: TLS_READ_BYTES_START,
            armed: None,
            owed: 0,
            failed: None,
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    pub(super) fn arm(&mut self, into: Destination) {
        // A second buffer would drop the first one, which the caller is still waiting for.
        debug_assert!(self.armed.is_none(), "one read at a time");
        self.armed = Some(into);
    }

    /// See [`Socket::send_now`].
    pub(super) fn send(&mut self, fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.owed > 0 {
            return Ok(std::mem::take(&mut self.owed));
        }
        let taken = self.conn.writer().write_vectored(parts)?;
        if self.flush(fd)? {
            return Ok(taken);
        }
        self.owed = taken;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Sends what is encrypted; whether all of it is gone.
    fn flush(&mut self, fd: RawFd) -> io::Result<bool> {
        while self.conn.wants_write() {
            match self.conn.write_tls(&mut Wire(fd)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends close_notify, as far as the peer takes it now.
    pub(super) fn close(&mut self, fd: RawFd) {
        self.conn.send_close_notify();
        let _ = self.flush(fd);
    }

    /// Sends close_notify from the client side, which has framed what it sent. A server may be in
    /// the middle of a response that ends with the connection, and must not mark it as complete.
    pub(super) fn close_as_client(&mut self, fd: RawFd) {
        if matches!(self.conn, Connection::Client(_)) && !self.conn.is_handshaking() {
            self.close(fd);
        }
    }

    /// A buffer for the next read.
    fn lend(&mut self) -> Buf {
        let mut cipher = self.cipher.take().unwrap_or_default();
        // The caller has decrypted all of it; what is left would be lost.
        debug_assert!(cipher.is_empty(), "ciphertext that was not decrypted");
        cipher.clear();
        if cipher.capacity() < self.read_bytes || cipher.capacity() > 2 * self.read_bytes {
            cipher = Buf::with_capacity(self.read_bytes);
        }
        cipher
    }

    /// Frees the buffer of the last read, if all of it was decrypted.
    fn rest(&mut self) {
        if self.cipher.as_ref().is_some_and(|cipher| cipher.is_empty()) {
            self.cipher = Some(Buf::default());
        }
    }

    /// Takes back what a read has filled.
    fn came(&mut self, result: &io::Result<usize>, cipher: Buf) {
        match result {
            Ok(0) => {
                // Whether that is the end that the peer has announced, the reader will say.
                let _ = self.conn.read_tls(&mut io::empty());
            }
            Ok(_) if cipher.spare() == 0 => {
                self.read_bytes = TLS_READ_BYTES_MAX;
            }
            Ok(count) if *count < TLS_READ_BYTES_START => self.read_bytes = TLS_READ_BYTES_START,
            Ok(_) => {}
            Err(error) => self.failed = Some(error.kind()),
        }
        self.cipher = Some(cipher);
    }

    /// Decrypts some of what was read.
    fn feed(&mut self, fd: RawFd) -> Result<(), rustls::Error> {
        let Some(cipher) = &mut self.cipher else {
            return Ok(());
        };
        let mut bytes: &[u8] = cipher;
        let taken = self.conn.read_tls(&mut bytes);
        let Ok(taken) = taken else {
            // Its buffer is full, which it is not as long as it is emptied before.
            return Err(rustls::Error::HandshakeNotComplete);
        };
        cipher.consume(taken);
        self.conn.process_new_packets()?;
        // A response to a change of keys. What the peer does not take now goes before what is sent
        // next.
        let _ = self.flush(fd);
        Ok(())
    }

    /// Fills a buffer with what has come, as [`Socket::poll_read`] reports it; `None` when it
    /// takes another read.
    fn fill(&mut self, fd: RawFd, buf: &mut Buf) -> Option<io::Result<usize>> {
        let before = buf.len();
        let ended = loop {
            let spare = buf.spare();
            if spare == 0 {
                break None;
            }
            match self.conn.reader().fill_buf() {
                Ok([]) => break Some(Ok(0)),
                Ok(chunk) => {
                    let taken = part::first(chunk, spare);
                    buf.extend(taken);
                    let count = taken.len();
                    self.conn.reader().consume(count);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The connection ended without close_notify: it may have been truncated.
                Err(error) => break Some(Err(error)),
            }
            if let Some(kind) = self.failed {
                break Some(Err(kind.into()));
            }
            if self.cipher.as_ref().is_none_or(|cipher| cipher.is_empty()) {
                break None;
            }
            if self.feed(fd).is_err() {
                let _ = self.flush(fd);
                self.failed = Some(io::ErrorKind::InvalidData);
            }
        };
        match buf.len() - before {
            0 => ended,
            count => Some(Ok(count)),
        }
    }
}

/// The socket as rustls writes to it.
struct Wire(RawFd);

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        sys::send_now(self.0, &[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::send_now(self.0, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Makes a fresh connection a secured one, as its client. May be dropped, and the connection
    /// with it; the caller bounds the time.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub(crate) async fn secure(self, client: &TlsClient) -> Result<Self, TlsFault> {
        let conn = client.begin().ok_or(TlsFault::WrongName)?;
        self.handshake(conn).await
    }

    /// The same as its server.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub(crate) async fn secure_accepted(self, identity: &TlsIdentity) -> Result<Self, TlsFault> {
        let conn = identity.begin().ok_or(TlsFault::Broken)?;
        self.handshake(conn).await
    }

    async fn handshake(mut self, conn: Connection) -> Result<Self, TlsFault> {
        // On the heap from the start: it is large, and every connection's task would be.
        let mut secured = Box::new(RefCell::new(Session::new(conn)));
        let fd = self.fd;
        loop {
            let session = secured.get_mut();
            if !session.flush(fd).map_err(|_| TlsFault::Broken)? {
                self.writable().await.map_err(|_| TlsFault::Broken)?;
                continue;
            }
            if !session.conn.is_handshaking() {
                self.tls = Some(secured);
                return Ok(self);
            }
            if session
                .cipher
                .as_ref()
                .is_none_or(|cipher| cipher.is_empty())
            {
                self.arm(session.lend());
                let (result, cipher) = self.read().await;
                if !matches!(result, Ok(1..)) {
                    return Err(TlsFault::Broken);
                }
                session.came(&result, cipher);
            }
            if let Err(error) = session.feed(fd) {
                let fault = fault_of(&error);
                if fault == TlsFault::NotTls && matches!(session.conn, Connection::Server(_)) {
                    let _ = sys::send_now(fd, &[IoSlice::new(PLAIN_HTTP_RESPONSE)]);
                } else {
                    // The alert that says why.
                    let _ = session.flush(fd);
                }
                return Err(fault);
            }
        }
    }

    /// [`Socket::poll_read`] of a secured connection.
    pub(super) fn poll_read_secured(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Buf)> {
        let Some(session) = self.tls.as_mut().map(|tls| tls.get_mut()) else {
            return Poll::Pending;
        };
        // Nothing would ever wake the caller.
        debug_assert!(session.armed.is_some(), "polled without a read");
        loop {
            if !self.read.is_armed() {
                let Some(into) = session.armed.take() else {
                    return Poll::Pending;
                };
                let (mut buf, ahead) = match into {
                    Destination::Buffer(buf, _) => (buf, true),
                    Destination::WhenReady(capacity) => (Buf::with_capacity(capacity), false),
                };
                let filled = session.fill(self.fd, &mut buf);
                if !ahead {
                    session.rest();
                }
                if let Some(result) = filled {
                    return Poll::Ready((result, buf));
                }
                let cipher = if ahead {
                    session.armed = Some(Destination::Buffer(buf, usize::MAX));
                    Destination::Buffer(session.lend(), usize::MAX)
                } else {
                    session.armed = Some(Destination::WhenReady(buf.capacity()));
                    Destination::WhenReady(session.read_bytes)
                };
                self.read.as_mut().arm(Rc::clone(&self.tcp), cipher);
            }
            let (result, cipher) = std::task::ready!(self.read.as_mut().poll(cx));
            session.came(&result, cipher);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    use rustls::{ClientConnection, RootCertStore, StreamOwned};

    use super::*;
    use crate::rt::{Accepted, Wanted, run};

    /// More than the sockets of both sides hold.
    const BYTES: usize = 16 << 20;

    fn piece(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    fn identity() -> (TlsIdentity, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        (identity.unwrap(), certificate)
    }

    /// A client that begins to read on a message; returns what it has read.
    fn slow_client(pem: &str, tcp: TcpStream, go: Receiver<()>) -> JoinHandle<Vec<u8>> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        let certificate = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
        roots.add(certificate.unwrap()).unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        std::thread::spawn(move || {
            let mut stream = StreamOwned::new(session, tcp);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            go.recv().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        })
    }

    /// Sends everything to a client that reads only once nothing more is taken; how often that
    /// was, and what the client has read.
    fn sent_to_a_slow_client(wanted: Wanted) -> (usize, Vec<u8>) {
        let (identity, pem) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (start, go) = channel();
        let client = slow_client(&pem, tcp, go);
        let blocked = run(wanted, |_| async move {
            let socket = Socket::accepted(Accepted::of(accepted)).unwrap();
            let socket = socket.secure_accepted(&identity).await.unwrap();
            let all: Vec<u8> = (0..BYTES).map(piece).collect();
            let (mut at, mut blocked) = (0, 0);
            while at < all.len() {
                // Two parts, as a head and a body are.
                let (head, body) = all[at..].split_at((all.len() - at).min(100));
                match socket.send_now(&[IoSlice::new(head), IoSlice::new(body)]) {
                    Ok(sent) => at += sent,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        if blocked == 0 {
                            start.send(()).unwrap();
                        }
                        blocked += 1;
                        socket.writable().await.unwrap();
                    }
                }
            }
            socket.shutdown_write();
            blocked
        });
        (blocked.unwrap(), client.join().unwrap())
    }

    #[test]
    fn a_slow_peer_gets_every_byte_once() {
        for wanted in [Wanted::Auto, Wanted::Epoll] {
            let (blocked, bytes) = sent_to_a_slow_client(wanted);
            assert!(blocked > 0, "the peer was not slow");
            assert_eq!(bytes.len(), BYTES, "{wanted:?}");
            assert!(
                bytes
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == piece(at))
            );
        }
    }

    #[test]
    fn the_response_to_plain_http_is_framed() {
        let text = std::str::from_utf8(PLAIN_HTTP_RESPONSE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
