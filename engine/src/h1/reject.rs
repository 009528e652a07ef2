//! Faults of messages, as data. They are mapped to a status here only; the caller writes the body
//! of the response.

/// Why a request is refused. Its connection cannot be used any longer: where the next request
/// would begin is not known, or not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// The request line is not method, target and version, one blank apart.
    BadRequestLine,
    /// An HTTP version other than 1.0 and 1.1 (505).
    BadVersion,
    /// The connection preface of HTTP/2.
    Http2Preface,
    /// A name that is not a token, a blank before the colon, a folded line, a control character.
    BadHeader,
    /// A line of the head that ends with LF alone.
    BareLf,
    /// A line of the head with a CR that is not followed by LF.
    BareCr,
    /// The head is larger than allowed, or has too many fields (431).
    HeadTooLarge,
    /// The target is none of the forms of RFC 9112 3.2 for this method, or has a broken escape.
    BadTarget,
    /// `CONNECT` (405).
    MethodNotAllowed,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    ManyHosts,
    /// A `Host` that cannot be a host with an optional port.
    BadHost,
    /// `Content-Length` is not one run of digits, or occurs twice.
    BadContentLength,
    /// Both `Content-Length` and `Transfer-Encoding`.
    ContentLengthAndTransferEncoding,
    /// `Transfer-Encoding` in a request of HTTP/1.0.
    TransferEncodingOnHttp10,
    /// `Transfer-Encoding` with an empty list, or `chunked` more than once.
    BadTransferEncoding,
    /// A transfer coding other than `chunked` (501).
    UnsupportedTransferEncoding,
    /// `Expect` with anything but `100-continue` (417).
    UnknownExpectation,
    /// More than one `Content-Type`.
    ManyContentTypes,
    /// `Connection` names too many fields and options.
    TooManyConnectionOptions,
}

impl Reject {
    /// The status of the response (docs/contract/surface.md#1.1 and docs/contract/surface.md#9).
    pub fn status(self) -> u16 {
        match self {
            Self::MethodNotAllowed => 405,
            Self::UnknownExpectation => 417,
            Self::HeadTooLarge => 431,
            Self::UnsupportedTransferEncoding => 501,
            Self::BadVersion => 505,
            _ => 400,
        }
    }

    /// One plain sentence that names what was wrong, without any byte of the request.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::BadRequestLine => "The request line is not a method, a target and a version.",
            Self::BadVersion => "The HTTP version is not supported; use HTTP/1.1.",
            Self::Http2Preface => "HTTP/2 is not spoken here; use HTTP/1.1.",
            Self::BadHeader => "A header line has a malformed name or value.",
            Self::BareLf => "A line of the request's head ends with LF instead of CRLF.",
            Self::BareCr => "A line of the request's head has a CR that LF does not follow.",
            Self::HeadTooLarge => "The request's headers are larger than allowed.",
            Self::BadTarget => "The request target is malformed.",
            Self::MethodNotAllowed => "CONNECT is not supported.",
            Self::NoHost => "The Host header is missing.",
            Self::ManyHosts => "There is more than one Host header.",
            Self::BadHost => "The Host header does not hold a valid host.",
            Self::BadContentLength => "Content-Length is not one whole number.",
            Self::ContentLengthAndTransferEncoding => {
                "Content-Length and Transfer-Encoding exclude each other."
            }
            Self::TransferEncodingOnHttp10 => "HTTP/1.0 has no Transfer-Encoding.",
            Self::BadTransferEncoding => "Transfer-Encoding is malformed.",
            Self::UnsupportedTransferEncoding => "Transfer-Encoding may only be chunked.",
            Self::UnknownExpectation => "Expect may only be 100-continue.",
            Self::ManyContentTypes => "There is more than one Content-Type header.",
            Self::TooManyConnectionOptions => "The Connection header names too many options.",
        }
    }
}

/// Why a response of a backend is not used: a 502 to the client, and the backend's connection is
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Malformed {
    /// The first line is not a version, a three-digit status and a reason.
    BadStatusLine,
    /// An HTTP version other than 1.0 and 1.1.
    BadVersion,
    /// A name that is not a token, a blank before the colon, a folded line, a control character.
    BadHeader,
    /// A line of the head that ends with LF alone.
    BareLf,
    /// The head is larger than allowed, or has too many fields.
    HeadTooLarge,
    /// `Content-Length` is not a run of digits, or occurs with different values.
    BadContentLength,
    /// `Transfer-Encoding` is not `chunked`, or occurs in a response of HTTP/1.0.
    BadTransferEncoding,
    /// `Connection` names too many fields and options.
    TooManyConnectionOptions,
}
