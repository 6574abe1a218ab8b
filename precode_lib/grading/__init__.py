"""Marks a folder of hand-ins: `precode grade FOLDER`.

A hand-in is a notebook by somebody else, so it is treated as a program that may do
anything. What is trusted and what is not:

- *Not trusted*: the hand-in's file, the kernel that runs it, and the pytest that drives
  the kernel with nbval, since a kernel can do to its parent what it likes. All of this
  runs in a box (`sandbox`, `inside`) under limits (`running`).
- *Trusted*: this process, which reads files (`collecting`), puts the answers into clean
  notebooks (`assembly`) and writes marks (`marks`, `report`); and an examiner for each
  hand-in (`precode_lib.marking.examiner`), which alone decides what is right.

book/teaching_grading.md says what the box contains and what it does not.

Importing this package loads nothing: it is also imported inside the box.
"""
