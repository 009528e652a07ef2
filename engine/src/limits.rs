//! Every bound of the engine, each with its reason. A name ends with its unit.
//!
//! Nothing here reads a configuration: what an operator may set (body and header sizes, timeouts,
//! pool sizes) reaches the code that needs it as an argument; no setting changes these bounds.

use std::time::Duration;

// ---- Heads -----------------------------------------------------------------------------------

/// The largest head of a request that any configuration can allow. Positions in a head are `u32`,
/// and a head is held in memory as a whole; `server.request_limits.max_header_size` is 64 KiB by
/// default (docs/contract/surface.md#11).
pub const REQUEST_HEAD_BYTES_CEILING: usize = 64 << 20;

/// The largest head of a response (docs/contract/surface.md#8.3). Servers of models send less than
/// 1 KiB.
pub(crate) const RESPONSE_HEAD_BYTES_MAX: usize = 32 << 10;

/// Header fields in one head. Browsers and SDKs send 10 to 30; a request that has passed some
/// proxies has perhaps 60. An index entry is 20 bytes.
pub(crate) const FIELDS_MAX: usize = 512;

/// Header fields that are indexed without the larger scratch space that `FIELDS_MAX` needs.
pub(crate) const FIELDS_USUAL: usize = 48;

/// CRLF bytes in front of a request line that are passed over (RFC 9112 2.2: at least one empty
/// line). Some old clients send one after a body; no client is known to send four.
pub(crate) const LEADING_CRLF_BYTES_MAX: usize = 8;

/// Names and options in all `Connection` fields of a head. Every field is compared with each of
/// them, so this bounds that work; a usual head has one or two.
pub(crate) const CONNECTION_OPTIONS_MAX: usize = 32;

/// 1xx responses of a backend that are passed over before its final one. A server sends one or two
/// (100, 103); one that sends them for ever would hold the exchange.
pub(crate) const INTERIM_RESPONSES_MAX: usize = 16;

// ---- Chunked bodies --------------------------------------------------------------------------

/// Hexadecimal digits of a chunk size, leading zeros included: what fits a `u64`.
pub(crate) const CHUNK_SIZE_DIGITS_MAX: usize = 16;

/// A chunk's line: size and extensions, without the CRLF.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 1 << 10;

/// Chunk extensions of a whole body. They are ignored, so their only use would be to cause work
/// (CVE-2023-39326 and its relatives).
pub(crate) const CHUNK_EXTENSION_BYTES_MAX: usize = 16 << 10;

/// The trailer section of a body. Trailers are dropped (docs/contract/surface.md#5.1 and
/// docs/contract/surface.md#7).
pub(crate) const TRAILER_BYTES_MAX: usize = 8 << 10;

/// The longest line that `encode_size` writes: 16 digits and CRLF.
pub(crate) const CHUNK_SIZE_LINE_BYTES_MAX: usize = CHUNK_SIZE_DIGITS_MAX + 2;

// ---- Buffers ---------------------------------------------------------------------------------

/// The initial read buffer of a client connection. Heads of SDKs are 300 to 900 bytes,
/// and with it comes most or all of a small chat's body.
pub(crate) const CLIENT_READ_BYTES_START: usize = 4 << 10;

/// Connections of a core, to clients and to backends, that wait with a buffer in hand; the others
/// take one when there is something to read, for a call of the kernel more. That is 4 MiB a core, and
/// up to sixteen times as much while all of them bring large responses ([`UPSTREAM_READ_BYTES_MAX`]).
pub(crate) const WAITING_BUFFERS_MAX: usize = 1024;

/// A connection holds a buffer while it waits if it waited no longer than this before. A call more
/// for every quarter of a second costs nothing that could be measured.
pub(crate) const BRISK_WAIT_MAX: Duration = Duration::from_millis(250);

/// How often binding to a port in use is retried at start, and at what interval. A start that
/// cannot succeed fails within a second (docs/contract/operations.md#11).
pub(crate) const BIND_RETRIES: u32 = 5;
/// See [`BIND_RETRIES`].
pub(crate) const BIND_RETRY_AFTER: Duration = Duration::from_millis(100);

/// The largest output buffer that a connection keeps; a larger one is freed after the request.
pub(crate) const OUT_BYTES_KEPT_MAX: usize = 16 << 10;

/// What is kept of it while a slow response is waited for: an event or two.
pub(crate) const OUT_BYTES_SLOW: usize = 512;

/// The initial read buffer of a backend connection: a head and some events.
pub(crate) const UPSTREAM_READ_BYTES_START: usize = 4 << 10;

/// The size that it grows to when reads fill it. It is also the most that is held in the gateway
/// while a client reads slowly (docs/contract/surface.md#1.2, `proxy.stream_buffer_size`).
pub(crate) const UPSTREAM_READ_BYTES_MAX: usize = 64 << 10;

/// Bytes of the next request that are held while the response to this one is in transit. More stays
/// in the kernel; a disconnect is then detected only after they are read (pipelining is rare).
pub(crate) const PIPELINED_BYTES_MAX: usize = 16 << 10;

/// Requests in a row that a connection may have served without a pause because they came together.
pub(crate) const PIPELINED_IN_A_ROW_MAX: u32 = 16;

/// The pause after them, so that other tasks and timers run.
pub(crate) const PIPELINED_PAUSE: Duration = Duration::from_millis(1);

/// The free space before each read of a chunked body; large reads cost less per byte.
pub(crate) const BODY_READ_BYTES_MIN: usize = 16 << 10;

/// The most that one read of a body brings. In two reads, a prompt of 1 MB costs 10 % more: what the
/// first one brought has left the processor's cache when the prompt is sent on.
pub(crate) const BODY_READ_BYTES_MAX: usize = 1 << 20;

/// The most that is inspected of it in one step, which takes up to ten nanoseconds a byte for a body
/// that is made to be slow.
pub(crate) const BODY_SHOW_BYTES_MAX: usize = 256 << 10;

/// A step that takes longer is followed by [`BODY_SHOW_PAUSE`]. Usual ones take a tenth of a
/// millisecond.
pub(crate) const BODY_SHOW_TIME_MAX: Duration = Duration::from_millis(1);

/// The pause, so that other tasks and timers run.
pub(crate) const BODY_SHOW_PAUSE: Duration = Duration::from_millis(1);

/// The number of bodies at one time up to which each is read as fast as it arrives. More bodies
/// share [`BODIES_TURN_BYTES`]: a thousand clients with a megabyte each would otherwise delay all
/// other requests.
pub(crate) const BODIES_UNSHARED_MAX: usize = 8;

/// The maximum that is read in one turn of all bodies that share it; one or two milliseconds of a
/// core's time.
pub(crate) const BODIES_TURN_BYTES: usize = 4 << 20;

/// The minimum that is read of each of them in a turn; smaller reads cost too much per byte.
pub(crate) const BODY_READ_BYTES_SHARED_MIN: usize = 8 << 10;

/// Maximum number of deadlines that are handled at one time. For each a response is made and sent,
/// a buffer given back and a connection closed, 30 to 60 µs of work; more follow after
/// [`DEADLINE_BACKLOG_PAUSE`].
pub(crate) const DEADLINES_PER_WAKE_MAX: usize = 8;

/// The pause before further deadlines are handled when more than [`DEADLINES_PER_WAKE_MAX`] have
/// passed, so that other tasks run.
pub(crate) const DEADLINE_BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// The most bodies waiting for budget that are woken in one tick; a microsecond each.
pub(crate) const BUDGET_WAKES_PER_TICK_MAX: usize = 64;

/// Places for clients in the table of what each holds of the budget, 8 bytes each. Of a thousand
/// clients with large bodies at one time, one in eight shares a place.
pub(crate) const BUDGET_CLIENTS: usize = 8192;

/// One client holds at most this part of the budget (docs/contract/surface.md#11).
pub const BUDGET_PART_OF_A_CLIENT: usize = 4;

/// One read of a body brings at most this part of what one client may hold: it is charged afterwards.
pub(crate) const BUDGET_READS_OF_A_CLIENT: usize = 16;

/// What a body is charged in advance of bytes that have not arrived: the least that a read is worth.
pub(crate) const BODY_BYTES_AHEAD: usize = 16 << 10;

/// A head up to this size is not charged; nearly all are smaller than its first buffer.
pub(crate) const HEAD_BYTES_UNCHARGED: usize = 16 << 10;
/// How long the decodings of a core may work in one turn. The step in progress may exceed it, by at
/// most a millisecond or two: see the next two.
pub(crate) const DECODE_SLICE: Duration = Duration::from_millis(1);

/// The most that a decoder reads in one step. It bounds steps that write nothing: blocks that hold
/// only their tables take 10 to 30 µs each and may be as short as 20 bytes.
pub(crate) const DECODE_READ_BYTES: usize = 4 << 10;

/// The most that a decoder writes in one step.
pub(crate) const DECODE_WRITE_BYTES: usize = 64 << 10;

/// The most that is decoded in a slice: it is inspected in the same turn, which may take three times
/// as long as decoding did.
pub(crate) const DECODE_SLICE_BYTES: usize = 256 << 10;

/// How long decodings work before they pause, so that timers run.
pub(crate) const DECODE_RUN: Duration = Duration::from_millis(4);

/// The pause after [`DECODE_RUN`].
pub(crate) const DECODE_PAUSE: Duration = Duration::from_millis(1);

/// The maximum number of bodies for which one core has a decoder on another thread at the same time;
/// no two of them are of the same client. A decoder holds a window of up to 16 MiB.
pub(crate) const DECODE_ASIDE_BODIES_MAX: usize = 4;

/// What a decoder on a thread of its own reads before it returns to its core.
pub(crate) const DECODE_ASIDE_READ_BYTES: usize = 64 << 10;

/// What it writes; the core copies and inspects it in one turn.
pub(crate) const DECODE_ASIDE_WRITE_BYTES: usize = 256 << 10;

/// The initial buffer of a decoded body; it doubles.
pub(crate) const DECODED_BYTES_START: usize = 128 << 10;

/// What is moved at a time when that buffer grows; about a millisecond with the faults of new pages.
pub(crate) const DECODED_MOVE_BYTES: usize = 1 << 20;

const _: () = assert!(DECODED_BYTES_START >= DECODE_WRITE_BYTES);

/// The initial ciphertext buffer of a TLS connection: a flight of a handshake, or some events.
pub(crate) const TLS_READ_BYTES_START: usize = 4 << 10;

/// What that grows to when a read fills it, and shrinks from when one brings little: some records
/// of at most 16 KiB each.
pub(crate) const TLS_READ_BYTES_MAX: usize = 64 << 10;

/// The most that is encrypted before the kernel has taken the previous ciphertext.
pub(crate) const TLS_SEND_BYTES_MAX: usize = 64 << 10;

/// The most that is read and discarded after a response that ends a connection early, so that the
/// response is not destroyed by a reset (lingering close).
pub(crate) const LINGER_BYTES_MAX: usize = 256 << 20;

/// A body that is not needed is read and discarded up to this size, so that the connection can be
/// used again; for a larger one, closing the connection costs less.
pub(crate) const DISCARDED_BODY_BYTES_MAX: u64 = 64 << 10;

/// The memory allocated at once for a body with an announced length. It grows as the body arrives,
/// so that an announcement alone costs little.
pub(crate) const BODY_BYTES_START: usize = 1 << 20;

// ---- Times -----------------------------------------------------------------------------------

/// How long a body waits, unread, for room among the bodies that are held already
/// (docs/contract/README.md#14).
pub(crate) const BUDGET_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The stretch of time over which the rate of a body is measured where its pauses have no limit
/// (docs/contract/surface.md#1.2).
pub(crate) const BODY_STRETCH_UNBOUNDED: Duration = Duration::from_secs(30);

/// How long an ended connection is still read from, and how long it may be silent meanwhile
/// (lingering close).
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`LINGER_TIMEOUT`].
pub(crate) const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

// ---- Work on threads of its own --------------------------------------------------------------

/// Threads for the work that handlers give away, if there are few cores; beyond eight cores there
/// is one for every four. One of them takes only short work.
pub(crate) const OFFLOAD_THREADS_MIN: usize = 2;

/// Work on at most this many bytes is short: a tenth of a second at the slowest that is known, a
/// body of many tiny values to be translated.
pub(crate) const OFFLOAD_SHORT_BYTES_MAX: usize = 2 << 20;

/// Niceness of these threads: about a quarter of a processor's time when a core wants all of it.
pub(crate) const OFFLOAD_NICE: i32 = 5;

// ---- Connections -----------------------------------------------------------------------------

/// Idle connections to one endpoint that a core keeps, the oldest going first. Each core has its
/// own. Short requests (embeddings) arrive in bursts of as many as a client has workers, and a
/// fresh connection for each would cost more than the request; those that are not needed again
/// are gone after the idle time.
pub(crate) const IDLE_CONNS_PER_ENDPOINT_MAX: usize = 64;

/// Sockets that wait for a core which another one accepted them for. When that many wait, the
/// accepting core keeps the next one.
pub(crate) const HANDED_OVER_SOCKETS_MAX: usize = 256;

/// The largest `Keep-Alive: timeout=` of a backend that is used as sent.
pub(crate) const KEEP_ALIVE_SECS_MAX: u32 = 24 * 60 * 60;

const _: () = {
    assert!(
        REQUEST_HEAD_BYTES_CEILING <= u32::MAX as usize,
        "a Span holds u32 positions"
    );
    assert!(
        RESPONSE_HEAD_BYTES_MAX <= UPSTREAM_READ_BYTES_MAX,
        "a response head fits its buffer"
    );
    assert!(FIELDS_MAX >= 256, "promised to clients");
    assert!(FIELDS_USUAL < FIELDS_MAX);
    assert!(LEADING_CRLF_BYTES_MAX.is_multiple_of(2));
    assert!(LEADING_CRLF_BYTES_MAX < CLIENT_READ_BYTES_START);
    assert!(
        CHUNK_SIZE_DIGITS_MAX * 4 == u64::BITS as usize,
        "a size never overflows"
    );
    assert!(CHUNK_SIZE_DIGITS_MAX < CHUNK_LINE_BYTES_MAX);
    assert!(CHUNK_LINE_BYTES_MAX < CHUNK_EXTENSION_BYTES_MAX);
    assert!(
        CHUNK_LINE_BYTES_MAX <= u16::MAX as usize,
        "a Decoder counts a line in u16"
    );
    assert!(CHUNK_EXTENSION_BYTES_MAX + CHUNK_LINE_BYTES_MAX <= u16::MAX as usize);
    assert!(TRAILER_BYTES_MAX <= u16::MAX as usize);
    assert!(UPSTREAM_READ_BYTES_START <= UPSTREAM_READ_BYTES_MAX);
    assert!(BODY_READ_BYTES_SHARED_MIN <= BODIES_TURN_BYTES / BODIES_UNSHARED_MAX);
    assert!(
        CLIENT_READ_BYTES_START <= PIPELINED_BYTES_MAX,
        "a first read may hold more requests"
    );
};
