//! The size of a request's header list.

use http::request::Parts as Head;

/// The size of the header list, in bytes as HTTP/2 counts them: the name and the value of each
/// field, and 32 for the field itself (RFC 9113, section 6.5.2). The pseudo-header fields count,
/// too.
pub(crate) fn header_list_bytes(head: &Head) -> usize {
    let Head { method, uri, headers, .. } = head;
    let path = uri.path_and_query().map(|path| (":path", path.as_str().len()));
    let pseudo = [
        Some((":method", method.as_str().len())),
        uri.scheme_str().map(|scheme| (":scheme", scheme.len())),
        uri.authority().map(|authority| (":authority", authority.as_str().len())),
        path,
    ];
    let pseudo = pseudo.into_iter().flatten().map(|(name, value)| name.len() + value);
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    pseudo.chain(fields).map(|bytes| bytes + FIELD_BYTES).sum()
}

/// The bytes that each field costs besides its name and value.
const FIELD_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn every_field_counts_its_name_its_value_and_32_bytes() {
        let (head, ()) = Request::post("http://host/path")
            .header("a", "bcd")
            .header("a", "")
            .header("binary-bin", "AAAA")
            .body(())
            .unwrap()
            .into_parts();
        let pseudo = [":methodPOST", ":schemehttp", ":authorityhost", ":path/path"];
        let fields = ["abcd", "a", "binary-binAAAA"];
        let expected: usize = pseudo.iter().chain(&fields).map(|field| field.len() + 32).sum();
        assert_eq!(header_list_bytes(&head), expected);
    }
}
