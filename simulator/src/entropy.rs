//! Takes the system's entropy away from simulated hosts.
//!
//! QUIC draws connection ids from the system and TLS draws its secrets, and their bytes can decide what becomes of a late
//! packet. So this module stands in for the two ways to the kernel's `getrandom` that the C library offers, the function of
//! that name and `syscall`: on a thread that plays a universe the bytes come from the seed, on all others from the kernel.
//! Generators that are kept per thread start anew with each universe only if each universe has a thread of its own:
//! [`with_seed`] gives it one.
//!
//! `build.rs` makes these functions visible to those who look them up by name. Linux only; elsewhere the entropy stays, and
//! one seed in a hundred has more than one trace in the QUIC world.

#![allow(unsafe_code, reason = "functions of the C library are replaced, which has no safe form")]

use std::cell::RefCell;

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use crate::random::stream;

thread_local! {
    static SEEDED: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Runs code on a thread of its own, on which the system's entropy is a function of `seed`.
///
/// # Panics
/// When the code does.
pub fn with_seed<T: Send>(seed: u64, act: impl FnOnce() -> T + Send) -> T {
    let run = move || {
        SEEDED.with(|seeded| *seeded.borrow_mut() = Some(stream(seed, "entropy")));
        act()
    };
    let result = std::thread::scope(|scope| scope.spawn(run).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Fills `bytes` if this thread plays a universe.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is replaced there"))]
fn fill_from_seed(bytes: &mut [u8]) -> bool {
    // While a thread ends, its own state may be gone; nothing simulated happens then.
    let filled = SEEDED.try_with(|seeded| {
        let mut seeded = seeded.try_borrow_mut().ok()?;
        seeded.as_mut()?.fill_bytes(bytes);
        Some(())
    });
    matches!(filled, Ok(Some(())))
}

#[cfg(target_os = "linux")]
mod replaced {
    use std::ffi::{c_char, c_long, c_void};
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::fill_from_seed;

    #[cfg(target_arch = "x86_64")]
    const SYS_GETRANDOM: c_long = 318;
    #[cfg(not(target_arch = "x86_64"))]
    const SYS_GETRANDOM: c_long = 278;

    /// What `dlsym` takes for "the next one after mine".
    const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;

    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

    /// The C library's own `syscall`. Looked up without a lock, for locks wait by `syscall`; twice does no harm.
    fn library_syscall() -> Syscall {
        static FOUND: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
        let mut found = FOUND.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: the name ends with a zero byte, and the handle is the one that the manual gives.
            found = unsafe { dlsym(RTLD_NEXT, c"syscall".as_ptr()) };
            assert!(!found.is_null(), "the C library has a function `syscall`");
            FOUND.store(found, Ordering::Relaxed);
        }
        // SAFETY: it is a function that takes up to seven words; on the machines this runs on, words are passed in the same
        // registers whether the callee names them or not.
        unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
    }

    /// Stands in for the function of this name in the C library.
    ///
    /// # Safety
    /// As the kernel demands for the call of that number.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn syscall(
        number: c_long,
        a: c_long,
        b: c_long,
        c: c_long,
        d: c_long,
        e: c_long,
        f: c_long,
    ) -> c_long {
        if number == SYS_GETRANDOM {
            // SAFETY: for this call the first two words are a buffer and its size.
            let filled = unsafe { fill(a as *mut u8, b) };
            if filled {
                return b;
            }
        }
        // SAFETY: passed on as it came.
        unsafe { library_syscall()(number, a, b, c, d, e, f) }
    }

    /// Stands in for the function of this name in the C library.
    ///
    /// # Safety
    /// `buffer` must be valid for writes of `size` bytes.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn getrandom(buffer: *mut u8, size: c_long, flags: c_long) -> c_long {
        // SAFETY: the caller vouches for the buffer.
        unsafe { syscall(SYS_GETRANDOM, buffer as c_long, size, flags, 0, 0, 0) }
    }

    /// # Safety
    /// `buffer` must be valid for writes of `size` bytes, or `size` zero.
    unsafe fn fill(buffer: *mut u8, size: c_long) -> bool {
        let Ok(size @ 1..) = usize::try_from(size) else { return false };
        // SAFETY: the caller vouches for it; a byte has no invalid values.
        fill_from_seed(unsafe { std::slice::from_raw_parts_mut(buffer, size) })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn system_bytes() -> [u8; 32] {
        let mut bytes = [0; 32];
        rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes).expect("the system has entropy");
        bytes
    }

    #[test]
    fn the_systems_entropy_is_a_function_of_the_seed() {
        assert_eq!(with_seed(1, system_bytes), with_seed(1, system_bytes));
        assert_ne!(with_seed(1, system_bytes), with_seed(2, system_bytes));
    }

    #[test]
    fn other_threads_have_real_entropy() {
        assert_ne!(system_bytes(), system_bytes());
    }
}
