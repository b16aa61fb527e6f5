"""Time, memory and accuracy of the library beside a loop written by hand and other libraries."""
