#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/auxv.h>
static int bss_var[4096]; static int data_var = 5; 
int main(int argc, char **argv)
{
	char *anon = mmap(0, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open(argv[1], O_RDWR);
	char *file = mmap(0, 3 * 4096, PROT_READ, MAP_PRIVATE, fd, 4096);
	char *shared = mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *heap = malloc(1000), local[16]; volatile char c;
	memset(anon, 7, 8 * 4096); c = file[10]; c = file[4096]; shared[0] = 1; strcpy(heap, "heap"); strcpy(local, "stack"); bss_var[7] = data_var;
	printf("USER|anon|0x%lx|touched anonymous page, +0x10\n", (long)anon + 0x10);
	printf("USER|anon_untouched|0x%lx|not yet touched anonymous page\n", (long)anon + 12 * 4096);
	printf("USER|file|0x%lx|private file mapping of %s, file offset 0x1000+0x20\n", (long)file + 0x20, argv[1]);
	printf("USER|shared|0x%lx|shared anonymous\n", (long)shared);
	printf("USER|heap|0x%lx|heap\n", (long)heap);
	printf("USER|stack|0x%lx|stack\n", (long)local);
	printf("USER|vdso|0x%lx|vdso\n", getauxval(AT_SYSINFO_EHDR) + 0x40);
	printf("USER|text|0x%lx|main\n", (long)main);
	printf("USER|data|0x%lx|data_var\n", (long)&data_var);
	printf("USER|bss|0x%lx|bss_var[7]\n", (long)&bss_var[7]);
	printf("USER|hole|0x%lx|a hole\n", 0x10000L);
	printf("USER|pid|%d|\n", getpid());
	fflush(stdout);
	if (argc > 2 && !strcmp(argv[2], "spin")) for (;;) data_var++;
	for (;;) pause();
}
