/* What the stub libraries share: their behaviour is told by environment variables. */
#ifndef STUB_H
#define STUB_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline const char *told(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

static inline int is(const char *name, const char *value)
{
	return strcmp(told(name), value) == 0;
}

static inline unsigned long long number(const char *name, unsigned long long otherwise)
{
	return *told(name) ? strtoull(told(name), NULL, 10) : otherwise;
}

/* The content of the file that a variable names: what changes while the library is loaded. */
static inline unsigned long long number_in_file(const char *name, unsigned long long otherwise)
{
	FILE *file = fopen(told(name), "r");
	unsigned long long found = otherwise;

	if (file) {
		if (fscanf(file, "%llu", &found) != 1)
			found = otherwise;
		fclose(file);
	}
	return found;
}

/*
 * The trouble named by <library>_TROUBLE when it shall happen at `place` (<library>_AT), as long as
 * there is the file that <library>_WHILE names, if it names one. One that hangs makes the file that
 * <library>_SIGN names.
 */
static inline void trouble(const char *library, const char *place)
{
	char name[64];
	const char *kind, *file;

	snprintf(name, sizeof name, "%s_AT", library);
	if (!is(name, place))
		return;
	snprintf(name, sizeof name, "%s_WHILE", library);
	file = told(name);
	if (*file && access(file, F_OK) != 0)
		return;
	snprintf(name, sizeof name, "%s_TROUBLE", library);
	kind = told(name);
	if (strcmp(kind, "hang") == 0) {
		/* As a driver that is stuck: no polite signal helps. */
		signal(SIGTERM, SIG_IGN);
		snprintf(name, sizeof name, "%s_SIGN", library);
		if (*told(name))
			fclose(fopen(told(name), "w"));
		for (;;)
			pause();
	}
	if (strcmp(kind, "abort") == 0) {
		fprintf(stderr, "stub: assertion failed in %s\n", place);
		abort();
	}
	if (strcmp(kind, "exit") == 0)
		_exit(0);
	if (strcmp(kind, "talk") == 0) {
		/* Much more than a pipe holds, to both outputs. */
		for (int i = 0; i < 20000; i++) {
			printf("stub: chatter on standard output %d\n", i);
			fprintf(stderr, "stub: chatter on standard error %d\n", i);
		}
		fflush(stdout);
	}
}

#endif
