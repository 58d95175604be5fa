//! Which layout of the packed values a gateway writes, and which it reads: docs/design/admission.md,
//! "Layouts".

/// A release, by the layouts that it knows. The config has no key for it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// This release: it writes and reads the first layout.
    #[cfg_attr(not(feature = "next-layout"), default)]
    Current,
    /// As a release before the change of the layout: it reads the next one, too. For tests.
    #[cfg(feature = "simulator")]
    ReadsNext,
    /// As a release after the change: it writes the next one. For tests.
    #[cfg(any(feature = "simulator", feature = "next-layout"))]
    #[cfg_attr(feature = "next-layout", default)]
    WritesNext,
}

impl Layout {
    /// The script as that release has it.
    pub(super) fn of(self, script: &str) -> String {
        match self {
            Self::Current => script.to_owned(),
            #[cfg(feature = "simulator")]
            Self::ReadsNext => next(script, '1'),
            #[cfg(any(feature = "simulator", feature = "next-layout"))]
            Self::WritesNext => next(script, '2'),
        }
    }
}

/// The next layout that the tests make up: no byte of it means the same.
#[cfg(any(feature = "simulator", feature = "next-layout"))]
fn next(script: &str, written: char) -> String {
    let known = "\n  [2] = { upstream = '>Bdddddddddd', tenant = '>Bddddddd', times = '>Bddd' },";
    let end = format!("{known}\n}}\nlocal WRITTEN = {written}\n");
    script.replacen(END_OF_LAYOUTS, &end, 1)
}

/// Where `common.lua` ends its list of layouts, and says which one it writes.
#[cfg(any(feature = "simulator", feature = "next-layout"))]
const END_OF_LAYOUTS: &str = "\n}\nlocal WRITTEN = 1\n";

#[cfg(all(test, feature = "simulator"))]
mod tests {
    use super::*;

    #[test]
    fn the_next_layout_is_another_script() {
        let script = include_str!("common.lua");
        assert_eq!(script.matches(END_OF_LAYOUTS).count(), 1);
        assert_eq!(Layout::Current.of(script), script);
        let (reads, writes) = (Layout::ReadsNext.of(script), Layout::WritesNext.of(script));
        assert!(reads.contains("[2] =") && reads.contains("WRITTEN = 1"));
        assert!(writes.contains("[2] =") && writes.contains("WRITTEN = 2"));
    }
}
