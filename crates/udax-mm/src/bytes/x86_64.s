// Accesses to media that survive a fault, for x86-64 (System V calling convention).
//
// Every function keeps in rcx how much it has still to do, and leaves through udax_mm_not_done,
// which returns that. Whichever instruction between udax_mm_guarded and udax_mm_guarded_end
// faults, the signal handler continues at udax_mm_not_done.
//
// The exceptions are the loops over vectors: udax_mm_avx, udax_mm_streaming and udax_mm_zeros. They
// have stored a part of what rcx says is to do. After a fault there the handler continues at the
// label of the same name with _failed, which goes on by words until the word that fails.

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
udax_mm_by_words:
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

// (to, from, words) -> words not done. As above in vectors of 32 bytes, for processors with AVX.
// The words before the first 32-byte boundary of `to` go one by one, so that no store crosses a
// cache line where `to` is aligned to words. The side of the medium is: each of its words lies in
// one line, and a vector is moved in parts that are no smaller than words.
    .p2align 6
    .hidden udax_mm_copy_avx
    .globl udax_mm_copy_avx
    .type udax_mm_copy_avx, @function
udax_mm_copy_avx:
    mov rcx, rdx
    cmp rcx, 8
    jb udax_mm_by_words
    mov edx, edi
    neg edx
    and edx, 31
    shr edx, 3
    jz 3f
2:  mov rax, qword ptr [rsi]
    mov qword ptr [rdi], rax
    add rsi, 8
    add rdi, 8
    dec rcx
    dec edx
    jnz 2b
3:  cmp rcx, 16
    jb 5f
    .p2align 5
    .hidden udax_mm_avx
    .globl udax_mm_avx
udax_mm_avx:
4:  vmovdqu ymm0, ymmword ptr [rsi]
    vmovdqu ymm1, ymmword ptr [rsi + 32]
    vmovdqu ymm2, ymmword ptr [rsi + 64]
    vmovdqu ymm3, ymmword ptr [rsi + 96]
    vmovdqu ymmword ptr [rdi], ymm0
    vmovdqu ymmword ptr [rdi + 32], ymm1
    vmovdqu ymmword ptr [rdi + 64], ymm2
    vmovdqu ymmword ptr [rdi + 96], ymm3
    add rsi, 128
    add rdi, 128
    sub rcx, 16
    cmp rcx, 16
    jae 4b
5:  cmp rcx, 4
    jb 7f
6:  vmovdqu ymm0, ymmword ptr [rsi]
    vmovdqu ymmword ptr [rdi], ymm0
    add rsi, 32
    add rdi, 32
    sub rcx, 4
    cmp rcx, 4
    jae 6b
    .hidden udax_mm_avx_failed
    .globl udax_mm_avx_failed
udax_mm_avx_failed:
7:  vzeroupper
    jmp udax_mm_by_words

// (to, from, words) -> words not done. As above with stores that go past the caches, of 16 bytes,
// which every x86-64 processor has. `to` is aligned to words. The fence makes the stores visible
// before anything that the caller stores later.
    .p2align 6
    .hidden udax_mm_copy_streaming
    .globl udax_mm_copy_streaming
    .type udax_mm_copy_streaming, @function
udax_mm_copy_streaming:
    mov rcx, rdx
    cmp rcx, 32
    jb udax_mm_by_words
    test edi, 8
    jz 3f
    mov rax, qword ptr [rsi]
    mov qword ptr [rdi], rax
    add rsi, 8
    add rdi, 8
    dec rcx
    .p2align 5
    .hidden udax_mm_streaming
    .globl udax_mm_streaming
udax_mm_streaming:
3:  prefetchnta byte ptr [rsi + 1024]
    prefetchnta byte ptr [rsi + 1088]
    movdqu xmm0, xmmword ptr [rsi]
    movdqu xmm1, xmmword ptr [rsi + 16]
    movdqu xmm2, xmmword ptr [rsi + 32]
    movdqu xmm3, xmmword ptr [rsi + 48]
    movdqu xmm4, xmmword ptr [rsi + 64]
    movdqu xmm5, xmmword ptr [rsi + 80]
    movdqu xmm6, xmmword ptr [rsi + 96]
    movdqu xmm7, xmmword ptr [rsi + 112]
    movntdq xmmword ptr [rdi], xmm0
    movntdq xmmword ptr [rdi + 16], xmm1
    movntdq xmmword ptr [rdi + 32], xmm2
    movntdq xmmword ptr [rdi + 48], xmm3
    movntdq xmmword ptr [rdi + 64], xmm4
    movntdq xmmword ptr [rdi + 80], xmm5
    movntdq xmmword ptr [rdi + 96], xmm6
    movntdq xmmword ptr [rdi + 112], xmm7
    add rsi, 128
    add rdi, 128
    sub rcx, 16
    cmp rcx, 16
    jae 3b
    .hidden udax_mm_streaming_failed
    .globl udax_mm_streaming_failed
udax_mm_streaming_failed:
    sfence
    jmp udax_mm_by_words

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
udax_mm_zero_by_words:
    test rcx, rcx
    jz udax_mm_not_done
2:  mov qword ptr [rdi], rax
    add rdi, 8
    dec rcx
    jnz 2b
    jmp udax_mm_not_done
3:  rep stosq
    jmp udax_mm_not_done

// (to, words) -> words not done. As above in vectors of 32 bytes, for processors with AVX.
    .p2align 6
    .hidden udax_mm_zero_avx
    .globl udax_mm_zero_avx
    .type udax_mm_zero_avx, @function
udax_mm_zero_avx:
    mov rcx, rsi
    xor eax, eax
    cmp rcx, 8
    jb udax_mm_zero_by_words
    mov edx, edi
    neg edx
    and edx, 31
    shr edx, 3
    jz 3f
2:  mov qword ptr [rdi], rax
    add rdi, 8
    dec rcx
    dec edx
    jnz 2b
3:  vpxor xmm0, xmm0, xmm0
    .p2align 5
    .hidden udax_mm_zeros
    .globl udax_mm_zeros
udax_mm_zeros:
    cmp rcx, 16
    jb 5f
4:  vmovdqu ymmword ptr [rdi], ymm0
    vmovdqu ymmword ptr [rdi + 32], ymm0
    vmovdqu ymmword ptr [rdi + 64], ymm0
    vmovdqu ymmword ptr [rdi + 96], ymm0
    add rdi, 128
    sub rcx, 16
    cmp rcx, 16
    jae 4b
5:  cmp rcx, 4
    jb 7f
6:  vmovdqu ymmword ptr [rdi], ymm0
    add rdi, 32
    sub rcx, 4
    cmp rcx, 4
    jae 6b
    .hidden udax_mm_zeros_failed
    .globl udax_mm_zeros_failed
udax_mm_zeros_failed:
7:  vzeroupper
    jmp udax_mm_zero_by_words

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
