//! Lets everything in programs of this package find the functions of `src/entropy.rs` before those of the C library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for function in ["getrandom", "syscall"] {
            println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={function}");
        }
    }
}
