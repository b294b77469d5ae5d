// Accesses to media that survive a fault, for AArch64 (AAPCS64).
//
// Every function keeps in x2 how much it has still to do, and leaves through udax_mm_not_done,
// which returns that. Whichever instruction between udax_mm_guarded and udax_mm_guarded_end
// faults, the signal handler continues at udax_mm_not_done.
//
// The exception is the loop over pairs, udax_mm_pairs: it has stored a part of what x2 says is to
// do. After a fault there the handler continues at udax_mm_pairs_failed, which goes on by words
// until the word that fails.

    .pushsection .text.udax_mm_guarded, "ax", @progbits
    .p2align 6
    .hidden udax_mm_guarded
    .globl udax_mm_guarded
udax_mm_guarded:

// (to, from, bytes) -> bytes not done. For heads and tails of fewer than eight bytes.
    .hidden udax_mm_copy_bytes
    .globl udax_mm_copy_bytes
    .type udax_mm_copy_bytes, @function
udax_mm_copy_bytes:
    cbz x2, udax_mm_not_done
2:  ldrb w3, [x1], #1
    strb w3, [x0], #1
    subs x2, x2, #1
    b.ne 2b
    b udax_mm_not_done

// (to, from, words) -> words not done. Each word is one load and one store of eight bytes, also in
// a pair.
    .hidden udax_mm_copy_words
    .globl udax_mm_copy_words
    .type udax_mm_copy_words, @function
udax_mm_copy_words:
    cmp x2, #8
    b.lo udax_mm_pairs_failed
    .hidden udax_mm_pairs
    .globl udax_mm_pairs
udax_mm_pairs:
2:  ldp x3, x4, [x1]
    ldp x5, x6, [x1, #16]
    ldp x7, x8, [x1, #32]
    ldp x9, x10, [x1, #48]
    stp x3, x4, [x0]
    stp x5, x6, [x0, #16]
    stp x7, x8, [x0, #32]
    stp x9, x10, [x0, #48]
    add x1, x1, #64
    add x0, x0, #64
    sub x2, x2, #8
    cmp x2, #8
    b.hs 2b
    .hidden udax_mm_pairs_failed
    .globl udax_mm_pairs_failed
udax_mm_pairs_failed:
    cbz x2, udax_mm_not_done
2:  ldr x3, [x1], #8
    str x3, [x0], #8
    subs x2, x2, #1
    b.ne 2b
    b udax_mm_not_done

// (to, bytes) -> bytes not done.
    .hidden udax_mm_zero_bytes
    .globl udax_mm_zero_bytes
    .type udax_mm_zero_bytes, @function
udax_mm_zero_bytes:
    mov x2, x1
    cbz x2, udax_mm_not_done
2:  strb wzr, [x0], #1
    subs x2, x2, #1
    b.ne 2b
    b udax_mm_not_done

// (to, words) -> words not done.
    .hidden udax_mm_zero_words
    .globl udax_mm_zero_words
    .type udax_mm_zero_words, @function
udax_mm_zero_words:
    mov x2, x1
    cbz x2, udax_mm_not_done
2:  str xzr, [x0], #8
    subs x2, x2, #1
    b.ne 2b
    b udax_mm_not_done

// (word, into) -> 1 if not done.
    .hidden udax_mm_load_word
    .globl udax_mm_load_word
    .type udax_mm_load_word, @function
udax_mm_load_word:
    mov x2, #1
    ldar x3, [x0]
    str x3, [x1]
    mov x2, #0
    b udax_mm_not_done

// (word, value) -> 1 if not done.
    .hidden udax_mm_store_word
    .globl udax_mm_store_word
    .type udax_mm_store_word, @function
udax_mm_store_word:
    mov x2, #1
    stlr x1, [x0]
    mov x2, #0
    b udax_mm_not_done

// (word, expected, value) -> 1 if not done. Stores what was found in expected.
    .hidden udax_mm_exchange_word
    .globl udax_mm_exchange_word
    .type udax_mm_exchange_word, @function
udax_mm_exchange_word:
    mov x5, x2
    mov x2, #1
    ldr x4, [x1]
2:  ldaxr x3, [x0]
    cmp x3, x4
    b.ne 3f
    stlxr w6, x5, [x0]
    cbnz w6, 2b
    b 4f
3:  clrex
4:  str x3, [x1]
    mov x2, #0
    b udax_mm_not_done

// (line, lines) -> lines not done. The caller counts in lines of 64 bytes, which no AArch64
// core with persistent memory undercuts.
    .hidden udax_mm_dc_cvac
    .globl udax_mm_dc_cvac
    .type udax_mm_dc_cvac, @function
udax_mm_dc_cvac:
    mov x2, x1
    cbz x2, udax_mm_not_done
2:  dc cvac, x0
    add x0, x0, #64
    subs x2, x2, #1
    b.ne 2b

    .hidden udax_mm_not_done
    .globl udax_mm_not_done
udax_mm_not_done:
    mov x0, x2
    ret

    .hidden udax_mm_guarded_end
    .globl udax_mm_guarded_end
udax_mm_guarded_end:
    .popsection
