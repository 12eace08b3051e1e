"""Emulator of Tencent Cloud CI document-preview jobs that really renders."""
