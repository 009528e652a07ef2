//! A bare byte relay on monoio: accepts, connects, copies both ways, and knows nothing of HTTP.
//! What a gateway costs beyond this is the price of its HTTP and of its features.
//!
//! Each direction is a task of its own that is never cancelled, because a read dropped in flight
//! loses bytes on io_uring. A direction that ends drops its writing half, which sends FIN; so the
//! end of one peer reaches the other, and then the second direction ends too.

use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Bytes of a direction's buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// Submission queue entries; a full queue is a panic inside monoio, so there are plenty.
const RING_ENTRIES: u32 = 4096;

/// What the relay waits for sockets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring, and epoll where that is not allowed
    Auto,
    /// io_uring or nothing
    #[value(name = "io_uring")]
    IoUring,
    /// epoll
    Epoll,
}

/// What `relay` is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct RelayOptions {
    /// Address to listen on; with port 0 the kernel chooses one. The first line of output names it
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Where the bytes go
    #[arg(long, value_name = "IP:PORT")]
    pub to: SocketAddr,
    /// What to wait for sockets with
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
}

/// Relays until the process ends; `on_listening` gets the address and whether the driver is epoll.
///
/// # Errors
/// What the system says about the ring or the listener.
pub fn run(options: &RelayOptions, on_listening: impl FnOnce(SocketAddr, bool)) -> io::Result<()> {
    let serving = serve(options.listen, options.to, on_listening);
    match options.driver {
        Driver::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build()?;
            runtime.block_on(serving)
        }
        Driver::IoUring => {
            let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES);
            let mut runtime = builder.uring_builder(ring()).build()?;
            runtime.block_on(serving)
        }
        Driver::Auto => {
            let builder = RuntimeBuilder::<FusionDriver>::new().with_entries(RING_ENTRIES);
            let mut runtime = builder.uring_builder(ring()).build()?;
            runtime.block_on(serving)
        }
    }
}

/// One thread submits, and completions wait until it asks: a quarter less processor time than the
/// default flags. Both together need Linux 6.0.
fn ring() -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    builder.setup_single_issuer().setup_coop_taskrun();
    builder
}

async fn serve(
    listen: SocketAddr,
    to: SocketAddr,
    on_listening: impl FnOnce(SocketAddr, bool),
) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    on_listening(listener.local_addr()?, monoio::utils::is_legacy());
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                monoio::spawn(relay(client, to));
            }
            // The client has gone already, or file descriptors have run out; in both cases there is
            // nothing to do but to go on.
            Err(error) => eprintln!("olla-loadtest relay: accept: {error}"),
        }
    }
}

async fn relay(client: TcpStream, to: SocketAddr) {
    let Ok(server) = TcpStream::connect_addr(to).await else {
        return;
    };
    let (Ok(()), Ok(())) = (client.set_nodelay(true), server.set_nodelay(true)) else {
        return;
    };
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    monoio::spawn(copy(client_reader, server_writer));
    copy(server_reader, client_writer).await;
}

/// Copies until the end or an error of either side; what one read brought, one write sends.
async fn copy(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRentExt) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (outcome, filled) = from.read(buffer).await;
        if !matches!(outcome, Ok(count) if count > 0) {
            return;
        }
        let (outcome, written) = to.write_all(filled).await;
        if outcome.is_err() {
            return;
        }
        buffer = written;
        buffer.clear();
    }
}
