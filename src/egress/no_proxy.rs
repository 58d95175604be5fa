//! Translates `NO_PROXY`, as curl reads it, for a matcher that reads it differently.

/// The list in the matcher's own form. curl also takes blanks between entries. It ignores a dot at
/// the end of an entry and brackets around an address. It knows `*` only as the whole value.
pub(super) fn as_curl_reads(list: &str) -> String {
    if list.trim() == "*" {
        // The matcher's `*` matches names only, so every address is added.
        return "*,0.0.0.0/0,::/0".to_owned();
    }
    let entries = list.split([',', ' ', '\t']).map(|entry| {
        let entry = entry.trim().trim_end_matches('.');
        entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry)
    });
    // The matcher would trim what is left of white space, and see a `*`. No host has any.
    let is_one =
        |entry: &&str| !entry.is_empty() && *entry != "*" && !entry.contains(char::is_whitespace);
    let entries: Vec<_> = entries.filter(is_one).collect();
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use crate::egress::Egress;

    fn is_direct(list: &str, uri: &str) -> bool {
        let egress = Egress::new(|name| match name {
            "HTTPS_PROXY" | "HTTP_PROXY" => Some("http://proxy:3128".into()),
            "NO_PROXY" => Some(list.into()),
            _ => None,
        });
        egress.unwrap().proxy_for(&uri.parse().unwrap()).is_none()
    }

    /// The cases of curl's own documentation of CURLOPT_NOPROXY, and of its tests.
    #[test]
    fn names_addresses_and_networks_are_left_out_as_curl_does() {
        for (list, uri, direct) in [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://www.example.com/", true),
            ("example.com", "https://notexample.com/", false),
            (".example.com", "https://example.com/", true),
            ("EXAMPLE.com.", "https://www.example.COM/", true),
            ("a.b, example.com", "https://example.com/", true),
            ("a.b example.com", "https://example.com/", true),
            ("*", "https://example.com/", true),
            ("*", "http://10.1.2.3:8000/", true),
            ("*", "http://[::1]:8000/", true),
            ("a.b,*", "https://example.com/", false),
            ("a.b,*\u{c}.", "https://example.com/", false),
            ("a.b,[\u{c}*]", "https://example.com/", false),
            ("*.example.com", "https://www.example.com/", false),
            ("10.0.0.0/8", "http://10.1.2.3:8000/", true),
            ("10.0.0.0/8", "http://11.1.2.3:8000/", false),
            ("192.168.1.7", "http://192.168.1.7/", true),
            ("fd00::/8", "http://[fd00:ec2::1]/", true),
            ("[::1]", "http://[::1]:8000/", true),
            ("", "https://example.com/", false),
        ] {
            assert_eq!(is_direct(list, uri), direct, "NO_PROXY={list} {uri}");
        }
    }
}
