//! The corpus as ordinary tests: what each crate's `fuzzing` module has for its targets. Included by path: the crates share no
//! code that all of them could take it from.

/// Every seed and past finding of one target.
pub fn replay(target: &str, run: fn(&[u8])) {
    let crate_folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpora = crate_folder.ancestors().map(|folder| folder.join("fuzz/corpus"));
    let corpus = corpora.filter(|folder| folder.is_dir()).map(|folder| folder.join(target)).next();
    let corpus = corpus.expect("a crate of this repository");
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).expect("a corpus for each target") {
        let path = entry.expect("a readable corpus").path();
        println!("{}", path.display());
        run(&std::fs::read(path).expect("a readable seed"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
}

/// A test of each of these targets.
macro_rules! replayed {
    ($($target:ident),*) => { $(
        #[test]
        fn $target() {
            super::replay::replay(stringify!($target), super::$target);
        }
    )* };
}
pub(crate) use replayed;
