//! Connect's error codes with their statuses.

use std::borrow::Cow;

use http::StatusCode;

/// The error codes of the answers: the operation's own from the model, then AWS's common ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ErrorCode {
    InvalidRequest,
    ResourceNotFound,
    Conflict,
    ServiceQuotaExceeded,
    Throttling,
    InternalService,
    AccessDenied,
    ExpiredToken,
    IncompleteSignature,
    InvalidSignature,
    MissingAuthenticationToken,
    RequestEntityTooLarge,
    Serialization,
    /// A code that AWS never sends.
    Teapot,
    UnknownOperation,
    UnrecognizedClient,
}

impl ErrorCode {
    /// Its name in `x-amzn-ErrorType`.
    pub(super) fn name(self) -> &'static str {
        self.row().0
    }

    pub(super) fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("InvalidRequestException", StatusCode::BAD_REQUEST),
            Self::ResourceNotFound => ("ResourceNotFoundException", StatusCode::NOT_FOUND),
            Self::Conflict => ("ConflictException", StatusCode::CONFLICT),
            Self::ServiceQuotaExceeded => {
                ("ServiceQuotaExceededException", StatusCode::PAYMENT_REQUIRED)
            }
            Self::Throttling => ("ThrottlingException", StatusCode::TOO_MANY_REQUESTS),
            Self::InternalService => {
                ("InternalServiceException", StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::AccessDenied => ("AccessDeniedException", StatusCode::FORBIDDEN),
            Self::ExpiredToken => ("ExpiredTokenException", StatusCode::FORBIDDEN),
            Self::IncompleteSignature => ("IncompleteSignatureException", StatusCode::FORBIDDEN),
            Self::InvalidSignature => ("InvalidSignatureException", StatusCode::FORBIDDEN),
            Self::MissingAuthenticationToken => {
                ("MissingAuthenticationTokenException", StatusCode::FORBIDDEN)
            }
            Self::RequestEntityTooLarge => {
                ("RequestEntityTooLargeException", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::Serialization => ("SerializationException", StatusCode::BAD_REQUEST),
            Self::Teapot => ("TeapotException", StatusCode::BAD_REQUEST),
            Self::UnknownOperation => ("UnknownOperationException", StatusCode::NOT_FOUND),
            Self::UnrecognizedClient => ("UnrecognizedClientException", StatusCode::FORBIDDEN),
        }
    }
}

/// A refusal: its code, and the `Message` of the body.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) message: Cow<'static, str>,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}
