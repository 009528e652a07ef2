//! Decodes a request's body once it has arrived, in steps between which other requests run.
//!
//! All decodings of a core share one slice of [`DECODE_SLICE`] a turn: a hundred of them delay other
//! requests no more than one does. The slice goes round the clients, so the bodies of one delay
//! those of another no more than one body does. A task that is ready in every turn would keep timers
//! from running, so the decodings pause together after some slices.
//!
//! Decoders whose steps are not bounded work on another thread ([`crate::offload`]): Brotli fills its
//! window of up to 16 MiB before it returns a byte, which takes some 80 ms, and nothing in its
//! interface makes that shorter. Their windows are charged in full. Each core has a few such bodies
//! in progress ([`DECODE_ASIDE_BODIES_MAX`]), each of another client, and these take turns step by
//! step.

mod turnstile;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use turnstile::{Passage, Turnstile};

use super::Core;
use super::body::{Body, BodyError, Receiving, room};
use crate::budget::{Client, Share};
use crate::buf::Buf;
use crate::decoding::{BodyDecoder, Decoded as Step, Decoding, Undecodable};
use crate::handler::{Handler, Refusal};
use crate::limits::{
    DECODE_ASIDE_BODIES_MAX, DECODE_ASIDE_READ_BYTES, DECODE_ASIDE_WRITE_BYTES, DECODE_PAUSE,
    DECODE_READ_BYTES, DECODE_RUN, DECODE_SLICE, DECODE_SLICE_BYTES, DECODE_WRITE_BYTES,
    DECODED_BYTES_START, DECODED_MOVE_BYTES,
};
use crate::part;
use crate::rt;

/// The decodings of one core; see the module.
#[derive(Debug)]
pub(super) struct Decodings {
    /// The slice of a turn.
    slice: Turnstile,
    /// The bodies that are decoded on the other threads.
    aside: Turnstile,
    /// How long slices have run since the last pause.
    ran: Cell<Duration>,
    /// Where decoders write to; whoever has the slice has it.
    room: RefCell<Vec<u8>>,
}

/// The slice of a turn. It is passed on when it is dropped.
struct Slice<'d> {
    decodings: &'d Decodings,
    _pass: Passage<'d>,
    ends: Instant,
}

impl Default for Decodings {
    fn default() -> Self {
        Self {
            slice: Turnstile::new(1),
            aside: Turnstile::new(DECODE_ASIDE_BODIES_MAX),
            ran: Cell::default(),
            room: RefCell::default(),
        }
    }
}

impl Decodings {
    async fn slice(&self, client: Client) -> Slice<'_> {
        let pass = self.slice.enter(client).await;
        Slice {
            decodings: self,
            _pass: pass,
            ends: Instant::now() + DECODE_SLICE,
        }
    }

    fn take_room(&self) -> Vec<u8> {
        let mut room = self.room.take();
        room.resize(DECODE_WRITE_BYTES, 0);
        room
    }
}

impl Slice<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// Lets others run, then passes the slice on.
    async fn end<H: Handler>(self, core: &Core<H>) {
        let ran = self.decodings.ran.get() + DECODE_SLICE;
        if ran >= DECODE_RUN {
            self.decodings.ran.set(Duration::ZERO);
            rt::sleep(DECODE_PAUSE).await;
        } else {
            self.decodings.ran.set(ran);
            core.end_of_turn().await;
        }
    }
}

/// A body that is being decoded, and what it holds of the budget.
struct Decoded {
    bytes: Buf,
    bytes_max: usize,
    /// Bytes of the encoded body that were read.
    read: usize,
    share: Share,
    /// The client that sent the body.
    client: Client,
    /// The decoder's own memory, and while the body is moved that of the smaller buffer.
    working: Share,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    More,
    /// The buffer has no room for another step.
    Full,
    Complete,
}

impl Decoded {
    /// Takes what a step has read and written. With `last`, its input ended with the body's last
    /// byte.
    fn add(
        &mut self,
        read: usize,
        written: &[u8],
        last: bool,
        decoder: &dyn BodyDecoder,
    ) -> Result<Progress, BodyError> {
        if self.bytes.len() + written.len() > self.bytes_max {
            return Err(BodyError::Refused(Refusal::BodyTooLarge));
        }
        self.read += read;
        self.bytes.extend(written);
        if read > 0 || !written.is_empty() {
            return Ok(match self.bytes.spare() < DECODE_WRITE_BYTES {
                true => Progress::Full,
                false => Progress::More,
            });
        }
        match (last, decoder.is_complete()) {
            (true, true) => Ok(Progress::Complete),
            (true, false) => Err(undecodable(Undecodable::Early)),
            (false, _) => Err(undecodable(Undecodable::Invalid)),
        }
    }
}

impl<H: Handler> Receiving<'_, H> {
    /// Decodes a body that has arrived. The buffer of the encoded one is given back.
    pub(super) async fn decode(
        &mut self,
        encoded: Body,
        decoding: Decoding,
    ) -> Result<Body, BodyError> {
        let Decoding { decoder, bytes_max } = decoding;
        let mut decoded = Decoded {
            bytes: Buf::with_capacity(DECODED_BYTES_START),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            read: 0,
            share: self.core.budget.share(self.client),
            client: self.core.budget.client(self.client),
            working: self.core.budget.share(self.client),
        };
        let start = decoded.bytes.capacity();
        room(self.core, self.io, &mut decoded.share, start).await?;
        if decoder.is_steady() {
            let own = decoder.memory_max().min(start);
            room(self.core, self.io, &mut decoded.working, own).await?;
            self.decode_here(&encoded, &mut decoded, decoder).await?;
        } else {
            self.decode_aside(&encoded, &mut decoded, decoder).await?;
        }
        self.show(&decoded.bytes);
        Ok(Body::decoded(decoded.bytes, decoded.share))
    }

    async fn decode_here(
        &mut self,
        encoded: &Body,
        decoded: &mut Decoded,
        mut decoder: Box<dyn BodyDecoder>,
    ) -> Result<(), BodyError> {
        let core = self.core;
        let decodings = &core.decodings;
        let watch = self.io.watch();
        loop {
            let slice = decodings.slice(decoded.client).await;
            let mut room = decodings.take_room();
            let before = decoded.bytes.len();
            let mut progress = Ok(Progress::More);
            while progress == Ok(Progress::More)
                && decoded.bytes.len() - before < DECODE_SLICE_BYTES
                && !slice.is_over()
            {
                let input = encoded.behind(self.message, self.head_len);
                let (input, last) = piece(part::rest(input, decoded.read), DECODE_READ_BYTES);
                progress = match decoder.decode(input, &mut room) {
                    Ok(step) => {
                        let written = part::first(&room, step.written);
                        let last = last && step.read == input.len();
                        decoded.add(step.read, written, last, &*decoder)
                    }
                    Err(why) => Err(undecodable(why)),
                };
            }
            decodings.room.replace(room);
            let progress = progress?;
            if progress == Progress::Complete {
                return Ok(());
            }
            self.show(&decoded.bytes);
            slice.end(core).await;
            if watch.has_left() {
                return Err(BodyError::Left);
            }
            if progress == Progress::Full {
                self.enlarge(decoded, decoder.memory_max()).await?;
            }
        }
    }

    /// The same on another thread. This core has few bodies there at a time, so none waits for memory
    /// while it is one of them, unless it could not begin at all.
    async fn decode_aside(
        &mut self,
        encoded: &Body,
        decoded: &mut Decoded,
        decoder: Box<dyn BodyDecoder>,
    ) -> Result<(), BodyError> {
        let core = self.core;
        let watch = self.io.watch();
        // Where the budget is very small, a part of the window: it is touched as far as it is filled.
        let window = decoder.memory_max().min(core.budget.of_a_client() / 2);
        let mut pass = core.decodings.aside.enter(decoded.client).await;
        if !decoded.working.enlarge(window) {
            drop(pass);
            room(core, self.io, &mut decoded.working, window).await?;
            pass = core.decodings.aside.enter(decoded.client).await;
        }
        let _pass = pass;
        if watch.has_left() {
            return Err(BodyError::Left);
        }
        let mut aside = DecoderAside {
            decoder,
            output: vec![0; DECODE_ASIDE_WRITE_BYTES],
        };
        loop {
            let room = decoded.bytes.spare().min(DECODE_ASIDE_WRITE_BYTES);
            aside.output.resize(room, 0);
            let rest = part::rest(encoded.behind(self.message, self.head_len), decoded.read);
            let (input, last) = piece(rest, DECODE_ASIDE_READ_BYTES);
            let (back, step) = core
                .decode_aside(decoded.client, aside, input.to_vec())
                .await?;
            aside = back;
            let step = step.map_err(undecodable)?;
            let last = last && step.read == input.len();
            let written = part::first(&aside.output, step.written);
            let progress = decoded.add(step.read, written, last, &*aside.decoder)?;
            if progress == Progress::Complete {
                return Ok(());
            }
            self.show(&decoded.bytes);
            if watch.has_left() {
                return Err(BodyError::Left);
            }
            if progress == Progress::Full {
                if !decoded.reserve(window) {
                    return Err(BodyError::Refused(Refusal::NoRoom));
                }
                self.move_larger(decoded).await;
            }
        }
    }

    /// Moves the decoded bytes into a buffer of twice the size, once there is room for it.
    async fn enlarge(&mut self, decoded: &mut Decoded, decoder: usize) -> Result<(), BodyError> {
        // A decoder uses no more of its own memory than it has decoded.
        let own = decoder.min(decoded.bytes.capacity().saturating_mul(2));
        let (working, capacity) = decoded.larger(own);
        room(self.core, self.io, &mut decoded.working, working).await?;
        room(self.core, self.io, &mut decoded.share, capacity).await?;
        self.move_larger(decoded).await;
        Ok(())
    }

    /// Moves in slices: a copy of all bytes would take as long as hundreds of requests.
    async fn move_larger(&mut self, decoded: &mut Decoded) {
        let capacity = decoded.bytes.capacity().saturating_mul(2);
        let mut larger = Buf::with_capacity(capacity);
        let core = self.core;
        while larger.len() < decoded.bytes.len() {
            let slice = core.decodings.slice(decoded.client).await;
            let rest = part::rest(&decoded.bytes, larger.len());
            larger.extend(part::first(rest, DECODED_MOVE_BYTES));
            slice.end(core).await;
        }
        decoded.bytes = larger;
    }
}

impl Decoded {
    /// What to hold while the bytes move into a buffer of twice the size, and of which size that is.
    fn larger(&self, decoder: usize) -> (usize, usize) {
        let before = self.bytes.capacity();
        (before.saturating_add(decoder), before.saturating_mul(2))
    }

    fn reserve(&mut self, decoder: usize) -> bool {
        let (working, capacity) = self.larger(decoder);
        self.working.enlarge(working) && self.share.enlarge(capacity)
    }
}

/// A decoder that another thread works with; it travels there and back.
struct DecoderAside {
    decoder: Box<dyn BodyDecoder>,
    /// Room for what is decoded; all of it is overwritten.
    output: Vec<u8>,
}

impl DecoderAside {
    /// Decodes until the room is full or the decoder does nothing more.
    fn run(&mut self, input: &[u8]) -> Result<Step, Undecodable> {
        let (mut read, mut written) = (0, 0);
        loop {
            let room = self.output.get_mut(written..).unwrap_or_default();
            let step = self.decoder.decode(part::rest(input, read), room)?;
            read += step.read;
            written += step.written;
            if written == self.output.len() || (step.read == 0 && step.written == 0) {
                return Ok(Step { read, written });
            }
        }
    }
}

impl<H: Handler> Core<H> {
    /// Decodes a piece of a body on another thread.
    async fn decode_aside(
        &self,
        client: Client,
        mut aside: DecoderAside,
        input: Vec<u8>,
    ) -> Result<(DecoderAside, Result<Step, Undecodable>), BodyError> {
        let (sender, back) = bounded(1);
        let work = move |input: &[u8]| {
            let step = aside.run(input);
            // The request may have ended meanwhile.
            let _ = sender.send((aside, step));
        };
        self.work_on(client, Box::new(work), input).await;
        let lost = |_| BodyError::Refused(Refusal::NoRoom);
        back.try_recv().map_err(lost)
    }
}

/// The next piece for a decoder, and whether nothing follows it.
fn piece(rest: &[u8], bytes_max: usize) -> (&[u8], bool) {
    let piece = part::first(rest, bytes_max);
    (piece, piece.len() == rest.len())
}

fn undecodable(why: Undecodable) -> BodyError {
    BodyError::Refused(Refusal::BodyUndecodable(why))
}
