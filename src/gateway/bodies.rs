//! Request bodies that need more than to be received: encoded ones, and those that must name a
//! model.
//!
//! Contract: docs/contract/surface.md#7.1, docs/contract/surface.md#11,
//! docs/contract/balancing.md#2, docs/contract/balancing.md#2.1

use olla_engine::decoding::{Decoding, Undecodable};
use olla_engine::h1::FieldId;
use olla_engine::handler::Request;

use super::exchange::Exchange;
use crate::config::NoModel;
use crate::dialects::{ApiFamily, Error};
use crate::encoding::{ACCEPTED, BodyCoding, Encoded};
use crate::inspect::{Found, Missing, without_mark};
use crate::routing::model_path::{is_model_path, takes_slot};
use crate::routing::route::RouteKind;

/// Bytes of a decoded body where no limit is configured.
const DECODED_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a model's name.
const NAME_BYTES_MAX: usize = 1024;

/// Why a request without a body names no model.
pub(super) const NO_BODY: &str = "the request has no body";

impl Exchange {
    /// Reads `Content-Encoding` on the routes whose bodies are read.
    ///
    /// # Errors
    /// The body is in a coding that cannot be decoded.
    pub(super) fn check_coding(&mut self, request: &Request<'_>) -> Result<(), Error> {
        let Request { head, bytes, .. } = *request;
        let is_read = match self.route.kind {
            RouteKind::Proxy(..) => false,
            RouteKind::Dialect(_, route, _) => !route.operation.is_listing(),
            _ => return Ok(()),
        };
        // The Messages API has a rule of its own for a request without a model.
        self.needs_model = self.route.family() != ApiFamily::Anthropic
            && head.method.of(bytes) == b"POST"
            && is_model_path(self.path(request));
        self.takes_slot = takes_slot(head.method.of(bytes), self.path(request));
        if !(self.needs_model || is_read) || !head.has(FieldId::ContentEncoding) {
            return Ok(());
        }
        let lines = head.all(FieldId::ContentEncoding);
        match Encoded::of(lines.map(|line| line.value.of(bytes))) {
            Encoded::Not => Ok(()),
            Encoded::By(coding) => {
                self.coding = BodyCoding::Encoded(coding);
                Ok(())
            }
            Encoded::Otherwise if !is_read && self.view.plan().routing.no_model == NoModel::Any => {
                self.coding = BodyCoding::Unreadable;
                Ok(())
            }
            Encoded::Otherwise => {
                let message = format!(
                    "Content-Encoding: expected one of {ACCEPTED}, got another or several; \
                     send the body without it"
                );
                let (kind, code) = ("unsupported_media_type", "UNSUPPORTED_ENCODING");
                let mut error = Error::new(415, kind, code, message);
                error.accept_encoding = Some(ACCEPTED);
                Err(error)
            }
        }
    }

    /// The decoder of a body that is encoded.
    pub(super) fn begin_decoding(&mut self) -> Option<Decoding> {
        let BodyCoding::Encoded(coding) = self.coding else {
            return None;
        };
        // Without memory for a decoder the body passes as it is.
        self.coding = BodyCoding::None;
        let decoder = coding.decoder()?;
        self.coding = BodyCoding::Decoded(coding);
        Some(Decoding {
            decoder,
            bytes_max: self.body_limit().0.unwrap_or(DECODED_BYTES_MAX),
        })
    }

    /// The error of a body that cannot be decoded.
    pub(super) fn undecodable(&self, why: Undecodable) -> Error {
        let coding = match self.coding {
            BodyCoding::Encoded(coding) | BodyCoding::Decoded(coding) => coding.as_str(),
            BodyCoding::None | BodyCoding::Unreadable => "encoded",
        };
        let message = match why {
            Undecodable::Invalid => format!("the request body is not valid {coding}"),
            Undecodable::Early => format!("the request body ends before its {coding} data does"),
            Undecodable::Trailing => {
                format!("the request body has other bytes behind its {coding} data")
            }
        };
        Error::new(400, "bad_request", "INVALID_BODY", message)
    }

    /// The error of a decoded body that is too large; `None` if it was too large as sent.
    pub(super) fn decoded_too_large(&self) -> Option<Error> {
        let BodyCoding::Decoded(coding) = self.coding else {
            return None;
        };
        let coding = coding.as_str();
        let message = match self.body_limit() {
            (Some(max), key) => format!(
                "the request body, decoded from {coding}, is larger than the {max} bytes that \
                 {key} allows"
            ),
            (None, _) => format!(
                "the request body, decoded from {coding}, is larger than {DECODED_BYTES_MAX} bytes"
            ),
        };
        Some(Error::new(
            413,
            "request_too_large",
            "BODY_TOO_LARGE",
            message,
        ))
    }

    /// The body without a byte order mark before its JSON.
    pub(super) fn unmarked<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        if self.findings.mark {
            without_mark(body)
        } else {
            body
        }
    }

    /// What was wrong where the model was looked for.
    pub(super) fn missing_model(&self, body: &[u8]) -> &'static str {
        if body.is_empty() {
            return NO_BODY;
        }
        match self.findings.missing {
            Missing::NotJson => "the body is not JSON",
            Missing::NotText => "\"model\" is not a string",
            Missing::Blank => "\"model\" is empty",
            Missing::Absent => "the body has no \"model\"",
            Missing::NoBoundary => "the Content-Type of the form has no usable boundary",
            Missing::NoPart => "the form has no part named model",
            Missing::BlankPart => "the form's part named model is empty",
            Missing::Crowded => "the form has too many parts named model",
        }
    }

    /// Refuses a model whose name is too long to be one.
    pub(super) fn check_name(&mut self) -> Result<(), Error> {
        let found = self.findings.model.as_ref();
        let too_long = self.kept.model.len() > NAME_BYTES_MAX || found.is_some_and(Found::is_huge);
        if !too_long {
            return Ok(());
        }
        self.kept.model.clear();
        let message = format!("model: expected a name of at most {NAME_BYTES_MAX} bytes");
        Err(Error::new(400, "bad_request", "INVALID_MODEL", message))
    }
}
