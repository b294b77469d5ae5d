// Accesses to media that survive a fault, for x86-64 (System V calling convention).
//
// Every function keeps in rcx how much it has still to do, and leaves through
// udax_mm_not_done, which returns that. So this text needs no table of fixups: whichever
// instruction between udax_mm_guarded and udax_mm_guarded_end faults, the signal handler
// continues at udax_mm_not_done.

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
    mov rcx, rdx
    test rcx, rcx
    jz udax_mm_not_done
2:  movzx eax, byte ptr [rsi]
    mov byte ptr [rdi], al
    inc rsi
    inc rdi
    dec rcx
    jnz 2b
    jmp udax_mm_not_done

// (to, from, words) -> words not done. Each word is one load and one store of eight bytes, also
// under rep movsq: an interrupt comes between two of them and never inside one. Starting rep movsq
// takes about as long as the loop takes for 48 words (measured on a Zen core).
    .p2align 4
    .hidden udax_mm_copy_words
    .globl udax_mm_copy_words
    .type udax_mm_copy_words, @function
udax_mm_copy_words:
    mov rcx, rdx
    cmp rcx, 48
    jae 3f
    test rcx, rcx
    jz udax_mm_not_done
2:  mov rax, qword ptr [rsi]
    mov qword ptr [rdi], rax
    add rsi, 8
    add rdi, 8
    dec rcx
    jnz 2b
    jmp udax_mm_not_done
3:  rep movsq
    jmp udax_mm_not_done

// (to, bytes) -> bytes not done.
    .p2align 4
    .hidden udax_mm_zero_bytes
    .globl udax_mm_zero_bytes
    .type udax_mm_zero_bytes, @function
udax_mm_zero_bytes:
    mov rcx, rsi
    test rcx, rcx
    jz udax_mm_not_done
2:  mov byte ptr [rdi], 0
    inc rdi
    dec rcx
    jnz 2b
    jmp udax_mm_not_done

// (to, words) -> words not done.
    .p2align 4
    .hidden udax_mm_zero_words
    .globl udax_mm_zero_words
    .type udax_mm_zero_words, @function
udax_mm_zero_words:
    mov rcx, rsi
    xor eax, eax
    cmp rcx, 48
    jae 3f
    test rcx, rcx
    jz udax_mm_not_done
2:  mov qword ptr [rdi], rax
    add rdi, 8
    dec rcx
    jnz 2b
    jmp udax_mm_not_done
3:  rep stosq
    jmp udax_mm_not_done

// (word, into) -> 1 if not done.
    .p2align 4
    .hidden udax_mm_load_word
    .globl udax_mm_load_word
    .type udax_mm_load_word, @function
udax_mm_load_word:
    mov ecx, 1
    mov rax, qword ptr [rdi]
    mov qword ptr [rsi], rax
    xor ecx, ecx
    jmp udax_mm_not_done

// (word, value) -> 1 if not done.
    .p2align 4
    .hidden udax_mm_store_word
    .globl udax_mm_store_word
    .type udax_mm_store_word, @function
udax_mm_store_word:
    mov ecx, 1
    mov qword ptr [rdi], rsi
    xor ecx, ecx
    jmp udax_mm_not_done

// (word, expected, value) -> 1 if not done. Stores what was found in expected.
    .p2align 4
    .hidden udax_mm_exchange_word
    .globl udax_mm_exchange_word
    .type udax_mm_exchange_word, @function
udax_mm_exchange_word:
    mov ecx, 1
    mov rax, qword ptr [rsi]
    lock cmpxchg qword ptr [rdi], rdx
    mov qword ptr [rsi], rax
    xor ecx, ecx
    jmp udax_mm_not_done

// (line, lines) -> lines not done.
    .p2align 4
    .hidden udax_mm_clwb
    .globl udax_mm_clwb
    .type udax_mm_clwb, @function
udax_mm_clwb:
    mov rcx, rsi
    test rcx, rcx
    jz udax_mm_not_done
2:  clwb byte ptr [rdi]
    add rdi, 64
    dec rcx
    jnz 2b
    jmp udax_mm_not_done

// (line, lines) -> lines not done.
    .p2align 4
    .hidden udax_mm_clflushopt
    .globl udax_mm_clflushopt
    .type udax_mm_clflushopt, @function
udax_mm_clflushopt:
    mov rcx, rsi
    test rcx, rcx
    jz udax_mm_not_done
2:  clflushopt byte ptr [rdi]
    add rdi, 64
    dec rcx
    jnz 2b
    jmp udax_mm_not_done

// (line, lines) -> lines not done.
    .p2align 4
    .hidden udax_mm_clflush
    .globl udax_mm_clflush
    .type udax_mm_clflush, @function
udax_mm_clflush:
    mov rcx, rsi
    test rcx, rcx
    jz udax_mm_not_done
2:  clflush byte ptr [rdi]
    add rdi, 64
    dec rcx
    jnz 2b

    .hidden udax_mm_not_done
    .globl udax_mm_not_done
udax_mm_not_done:
    mov rax, rcx
    ret

    .hidden udax_mm_guarded_end
    .globl udax_mm_guarded_end
udax_mm_guarded_end:
    .popsection
