//! AWS Signature Version 4 on the server's side. The signature is computed again over the parts
//! that the client names as signed, and compared. Rules and messages are those of AWS's "Signature
//! Version 4" reference.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::error::{ErrorCode, Failure};

/// `now` is the simulator's time. The region is the one that the client names.
pub(super) fn verify(head: &Parts, body: &[u8], now: Timestamp) -> Result<(), Failure> {
    let authorization = Authorization::parse(&head.headers)?;
    if authorization.access_key_id != ACCESS_KEY_ID {
        let message = "The security token included in the request is invalid.";
        return Err(Failure::new(ErrorCode::UnrecognizedClient, message));
    }
    let time = SignedTime::parse(&head.headers)?;
    time.check(&authorization, now)?;
    let headers = authorization.headers(&head.headers)?;
    let expected =
        expected_signature(head.method.as_str(), &headers, body, authorization.region, time.at)
            .ok_or_else(|| incomplete("The signed headers cannot be put in canonical form."))?;
    if equal_in_constant_time(expected.as_bytes(), authorization.signature.as_bytes()) {
        Ok(())
    } else {
        Err(invalid(
            "The request signature we calculated does not match the signature you provided. \
             Check your AWS Secret Access Key and signing method.",
        ))
    }
}

/// `None` if `aws-sigv4` cannot make a canonical request of the headers.
fn expected_signature(
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    region: &str,
    time: Timestamp,
) -> Option<String> {
    let credentials = Credentials::from_keys(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None).into();
    let mut settings = SigningSettings::default();
    // The client chooses the headers that it signs. The default would leave out `user-agent` and
    // some others.
    settings.excluded_headers = None;
    if headers.iter().any(|(name, _)| *name == CONTENT_SHA256) {
        // Replaces the client's digest by the real one, so that a false digest makes the signature
        // wrong.
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let params = v4::SigningParams::builder()
        .identity(&credentials)
        .region(region)
        .name(SERVICE)
        .time(time.into())
        .settings(settings)
        .build()
        .ok()?
        .into();
    let request =
        SignableRequest::new(method, PATH, headers.iter().copied(), SignableBody::Bytes(body))
            .ok()?;
    sign(request, &params).ok().map(|output| output.signature().to_owned())
}

#[derive(Debug)]
struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(headers: &'a HeaderMap) -> Result<Self, Failure> {
        if !headers.contains_key(AUTHORIZATION) {
            return Err(Failure::new(
                ErrorCode::MissingAuthenticationToken,
                "Missing Authentication Token",
            ));
        }
        let value = only(headers, AUTHORIZATION.as_str())
            .and_then(|value| value.strip_prefix("AWS4-HMAC-SHA256 "))
            .ok_or_else(|| {
                incomplete("The request needs one Authorization header, of AWS4-HMAC-SHA256.")
            })?;
        let part = |key: &str| {
            let mut parts = value.split(',').filter_map(|part| part.trim().split_once('='));
            parts.find_map(|(known, value)| (known == key).then_some(value)).ok_or_else(|| {
                incomplete(format!("Authorization header requires '{key}' parameter."))
            })
        };
        let (credential, signed_headers, signature) =
            (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete("Credential must be KEY/DATE/REGION/SERVICE/aws4_request."));
        };
        if service != SERVICE {
            return Err(invalid("Credential should be scoped to correct service: 'connect'."));
        }
        Ok(Self { access_key_id, date, region, signed_headers, signature })
    }

    /// The headers that the client names as signed. AWS demands `host` and every `x-amz-` header
    /// among them: the latter carry the date and the digest of the body.
    fn headers(&self, headers: &'a HeaderMap) -> Result<Vec<(&'a str, &'a str)>, Failure> {
        let names: Vec<&str> = self.signed_headers.split(';').collect();
        for required in ["host", DATE, CONTENT_SHA256] {
            if !names.contains(&required) && (required == "host" || headers.contains_key(required))
            {
                return Err(invalid(format!("'{required}' must be a signed header.")));
            }
        }
        let mut signed = Vec::with_capacity(names.len());
        for name in names {
            let before = signed.len();
            for value in headers.get_all(name) {
                let value = value
                    .to_str()
                    .map_err(|_| incomplete("Signed headers must be visible ASCII."))?;
                signed.push((name, value));
            }
            if signed.len() == before {
                return Err(invalid(format!("The signed header '{name}' is not in the request.")));
            }
        }
        Ok(signed)
    }
}

/// The `x-amz-date` of a request: the time as text for messages, and parsed.
#[derive(Debug)]
struct SignedTime<'a> {
    text: &'a str,
    at: Timestamp,
}

impl<'a> SignedTime<'a> {
    fn parse(headers: &'a HeaderMap) -> Result<Self, Failure> {
        let text = only(headers, DATE)
            .ok_or_else(|| incomplete("The request needs one 'X-Amz-Date' header."))?;
        DateTime::strptime(DATE_FORMAT, text)
            .and_then(|civil| TimeZone::UTC.to_timestamp(civil))
            .map(|at| Self { text, at })
            .map_err(|_| incomplete("Date must be in ISO-8601 'basic format'."))
    }

    // Also protects `aws-sigv4`, whose calendar is smaller than ours, from a date that is far off.
    fn check(&self, authorization: &Authorization<'_>, now: Timestamp) -> Result<(), Failure> {
        let basic = |time: Timestamp| time.strftime(DATE_FORMAT).to_string();
        let (oldest, newest) = (now.checked_sub(MAX_SKEW), now.checked_add(MAX_SKEW));
        if let Ok(oldest) = oldest
            && self.at < oldest
        {
            let (oldest, now) = (basic(oldest), basic(now));
            let message = format!(
                "Signature expired: {} is now earlier than {oldest} ({now} - 5 min.)",
                self.text
            );
            return Err(invalid(message));
        }
        if let Ok(newest) = newest
            && self.at > newest
        {
            let (newest, now) = (basic(newest), basic(now));
            let message = format!(
                "Signature not yet current: {} is still later than {newest} ({now} + 5 min.)",
                self.text
            );
            return Err(invalid(message));
        }
        if self.text.split('T').next() != Some(authorization.date) {
            return Err(invalid(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.",
            ));
        }
        Ok(())
    }
}

/// The value of a header that occurs once, as visible ASCII.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |differences, (l, r)| differences | (l ^ r)) == 0
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(ErrorCode::InvalidSignature, message)
}

fn incomplete(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(ErrorCode::IncompleteSignature, message)
}

/// The one access key id. Public and worthless: it opens only this simulator.
pub const ACCESS_KEY_ID: &str = "SIMULATORACCESSKEYID";

/// Its secret, also public and worthless. It is alphanumeric, so that a shell needs no quotes.
pub const SECRET_ACCESS_KEY: &str = "ThisSecretOfTheSimulatorOpensNothingReal";

/// The only path whose requests are signed.
pub(super) const PATH: &str = "/contact/create-participant";
const SERVICE: &str = "connect";
const DATE: &str = "x-amz-date";
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const CONTENT_SHA256: &str = "x-amz-content-sha256";

// AWS allows five minutes in both directions.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"ContactId":"c"}"#;
    const SIGNED_AT: &str = "2026-01-02T03:04:05Z";
    // The signature is botocore's, so that the check does not confirm itself.
    const SIGNATURE: &str = "aae560458946c2e6b05abd7a4938dec0247d0a9bfa26e8a6f7d198ba9b6859ac";

    fn request(change: impl FnOnce(&mut HeaderMap)) -> Parts {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/20260102/eu-west-2/connect/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={SIGNATURE}"
        );
        let (mut head, ()) = http::Request::post(PATH)
            .header("host", "127.0.0.1:8080")
            .header("content-type", "application/json")
            .header(DATE, "20260102T030405Z")
            .header(AUTHORIZATION, authorization)
            .body(())
            .expect("a request")
            .into_parts();
        change(&mut head.headers);
        head
    }

    fn verified(head: &Parts, body: &[u8], seconds_later: i64) -> Result<(), ErrorCode> {
        let now = SIGNED_AT.parse::<Timestamp>().expect("a timestamp")
            + SignedDuration::from_secs(seconds_later);
        verify(head, body, now).map_err(|failure| failure.code)
    }

    fn replaced(name: &'static str, from: &str, to: &str) -> Parts {
        request(|headers| {
            let value = headers[name].to_str().expect("ASCII").replace(from, to);
            headers.insert(name, value.parse().expect("a header value"));
        })
    }

    #[test]
    fn a_request_that_botocore_signed_is_accepted() {
        assert_eq!(verified(&request(|_| ()), BODY, 0), Ok(()));
    }

    #[test]
    fn five_minutes_of_skew_are_tolerated_and_no_more() {
        for (seconds, expected) in [(300, Ok(())), (-300, Ok(())), (301, Err(())), (-301, Err(()))]
        {
            let result = verified(&request(|_| ()), BODY, seconds);
            assert_eq!(result, expected.map_err(|()| ErrorCode::InvalidSignature), "{seconds} s");
        }
    }

    #[test]
    fn whatever_was_signed_cannot_be_changed() {
        let invalid = Err(ErrorCode::InvalidSignature);
        assert_eq!(verified(&request(|_| ()), b"{}", 0), invalid);
        assert_eq!(verified(&replaced("host", "8080", "8081"), BODY, 0), invalid);
        assert_eq!(verified(&replaced(DATE, "05Z", "06Z"), BODY, 0), invalid);
        for (from, to) in [
            ("eu-west-2", "eu-west-1"),
            ("/20260102/", "/20260103/"),
            ("/connect/", "/s3/"),
            ("aae5", "aae6"),
            ("59ac", "59"),
            ("host;", ""),
            (";x-amz-date", ""),
            ("host;", "host;user-agent;"),
        ] {
            assert_eq!(
                verified(&replaced("authorization", from, to), BODY, 0),
                invalid,
                "{from} to {to}"
            );
        }
        let unsigned_digest = request(|headers| {
            headers.insert(CONTENT_SHA256, http::HeaderValue::from_static("UNSIGNED-PAYLOAD"));
        });
        assert_eq!(verified(&unsigned_digest, BODY, 0), invalid);
    }

    #[test]
    fn credentials_that_are_missing_unknown_or_unreadable_are_told_apart() {
        let missing = request(|headers| drop(headers.remove(AUTHORIZATION)));
        assert_eq!(verified(&missing, BODY, 0), Err(ErrorCode::MissingAuthenticationToken));
        let unknown = replaced("authorization", ACCESS_KEY_ID, "SOMEONEELSE");
        assert_eq!(verified(&unknown, BODY, 0), Err(ErrorCode::UnrecognizedClient));
        for (name, from, to) in [
            ("authorization", "AWS4-HMAC-SHA256 ", "Basic "),
            ("authorization", "Signature=", "Sign="),
            ("authorization", "/aws4_request", ""),
            (DATE, "20260102T", "2026-01-02T"),
            (DATE, "20260102T030405Z", "99999999T999999Z"),
        ] {
            assert_eq!(
                verified(&replaced(name, from, to), BODY, 0),
                Err(ErrorCode::IncompleteSignature),
                "{from}"
            );
        }
    }
}
