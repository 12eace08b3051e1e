' The part of a conversion that runs inside LibreOffice: open one document, write it (or each of its sheets) as PDF.
' The task is a file of lines named by DOCPREVIEW_TASK; what came of it goes to the file that the task names. A password
' is in a variable, since command lines and files have other readers. Macros of the document itself never run, and its
' links are not followed.

' `And` and `Or` of this language evaluate both of their sides.

Const NOTHING_RUNS = 0
Const NO_UPDATES = 0
Const NO_NOTES = 0
Const NOTES_IN_THE_MARGIN = 4
Const INSERTED_AND_REMOVED = 2
Const VALUES_DATES_TEXTS_FORMULAS = 23

' Fewer than a page of the smallest paper has, of areas up to a size.
Const COLUMNS_BETWEEN_BLANKS = 2
Const ROWS_BETWEEN_BLANKS = 10
Const MOST_COLUMNS = 100
Const MOST_ROWS = 2000

Const MOST_BESIDE = 4  ' columns of long texts on a page: lines in narrower ones are hard to read
Const GROWN = 1.3  ' by a part of a line or more; less is how heights are rounded
Const MOST_FITTED_ROWS = 10000  ' a row takes a quarter of a millisecond
Const MOST_MEASURED_COLUMNS = 1000

Dim Task() As String
Dim Room  ' the width and height of what fits on a page, and the width up to the edge of the paper
Dim HighestRow

Sub Main
  On Error GoTo Broken
  ReadTask()
  SetNotes()
  Dim document
  document = StarDesktop.loadComponentFromURL(Task(0), "_blank", 0, LoadArguments())
  If IsNull(document) Then
    Report("unreadable")
  ElseIf IsMisread(document) Then
    Report("unreadable")
    document.close(True)
  Else
    Report("opened")
    ReportLinks(document)
    If document.supportsService("com.sun.star.sheet.SpreadsheetDocument") Then
      ExportSheets(document)
    Else
      ExportWhole(document)
    End If
    document.close(True)
  End If
  StarDesktop.terminate()
  Exit Sub
Broken:
  Report("broken " & Err)
  StarDesktop.terminate()
End Sub

Sub ReadTask()
  Dim fileAccess, reader, count
  fileAccess = CreateUnoService("com.sun.star.ucb.SimpleFileAccess")
  reader = CreateUnoService("com.sun.star.io.TextInputStream")
  reader.setInputStream(fileAccess.openFileRead(Environ("DOCPREVIEW_TASK")))
  reader.setEncoding("UTF-8")
  ReDim Task(8) As String
  For count = 0 To 8
    If Not reader.isEOF() Then Task(count) = reader.readLine()
  Next
  reader.closeInput()
End Sub

' The password comes as numbers of characters in a variable, so that no file has it.
Function Password() As String
  Dim found As String
  Dim number
  For Each number In Split(Environ("DOCPREVIEW_PASSWORD"), " ")
    If number <> "" Then found = found & Chr(CLng(number))
  Next
  Password = found
End Function

Function ShowsComments() As Boolean
  ShowsComments = (Task(5) = "1")
End Function

' Notes of text documents in the margin: versions without ExportNotesInMargin draw them as the option of prints says.
Sub SetNotes()
  Dim node(0) As New com.sun.star.beans.PropertyValue
  Dim settings
  node(0).Name = "nodepath"
  node(0).Value = "/org.openoffice.Office.Writer/Print/Content"
  settings = CreateUnoService("com.sun.star.configuration.ConfigurationProvider")
  settings = settings.createInstanceWithArguments("com.sun.star.configuration.ConfigurationUpdateAccess", node())
  settings.setPropertyValue("Note", CLng(IIf(ShowsComments(), NOTES_IN_THE_MARGIN, NO_NOTES)))
  settings.commitChanges()
End Sub

Function LoadArguments()
  Dim arguments(5) As New com.sun.star.beans.PropertyValue
  arguments(0).Name = "Hidden"
  arguments(0).Value = True
  arguments(1).Name = "MacroExecutionMode"
  arguments(1).Value = NOTHING_RUNS
  arguments(2).Name = "UpdateDocMode"
  arguments(2).Value = NO_UPDATES
  arguments(3).Name = IIf(Task(3) = "", "Ignored", "FilterName")
  arguments(3).Value = Task(3)
  arguments(4).Name = IIf(Task(4) = "", "Ignored", "FilterOptions")
  arguments(4).Value = Task(4)
  arguments(5).Name = IIf(Password() = "", "Ignored", "Password")
  arguments(5).Value = Password()
  LoadArguments = arguments()
End Function

' LibreOffice opens what it does not know as text, and would make pages of garbage.
Function IsMisread(document) As Boolean
  Dim argument
  IsMisread = False
  For Each argument In document.Args
    If argument.Name = "FilterName" And Task(3) = "" Then IsMisread = (Left(argument.Value, 4) = "Text")
  Next
End Function

Sub ExportWhole(document)
  Dim filterName As String
  filterName = "writer_pdf_Export"
  If document.supportsService("com.sun.star.presentation.PresentationDocument") Then
    filterName = "impress_pdf_Export"
  ElseIf document.supportsService("com.sun.star.drawing.DrawingDocument") Then
    filterName = "draw_pdf_Export"
  ElseIf document.supportsService("com.sun.star.text.WebDocument") Then
    filterName = "writer_web_pdf_Export"
  ElseIf ShowsComments() Then
    document.RedlineDisplayType = INSERTED_AND_REMOVED
  Else
    ApplyChanges(document)
  End If
  If filterName = "impress_pdf_Export" Then ReportHiddenSlides(document.DrawPages)
  Export(document, "whole.pdf", filterName, "ExportNotesInMargin", ShowsComments())
  Report("whole")
End Sub

' Pictures that are links to other files or machines, which are not followed.
Sub ReportLinks(document)
  Dim count, index
  count = 0
  If document.supportsService("com.sun.star.text.GenericTextDocument") Then
    count = LinksOf(document.GraphicObjects)
  ElseIf document.supportsService("com.sun.star.sheet.SpreadsheetDocument") Then
    For index = 0 To document.Sheets.Count - 1
      count = count + LinksOf(document.Sheets.getByIndex(index).DrawPage)
    Next
  Else
    For index = 0 To document.DrawPages.Count - 1
      count = count + LinksOf(document.DrawPages.getByIndex(index))
    Next
  End If
  If count > 0 Then Report("links " & count)
End Sub

Function LinksOf(shapes)
  Dim count, index, shape
  count = 0
  For index = 0 To shapes.Count - 1
    shape = shapes.getByIndex(index)
    If HasUnoInterfaces(shape, "com.sun.star.beans.XPropertySet") Then
      If shape.PropertySetInfo.hasPropertyByName("Graphic") Then
        If Not IsNull(shape.Graphic) Then
          If shape.Graphic.OriginURL <> "" Then count = count + 1
        End If
      End If
    End If
  Next
  LinksOf = count
End Function

Sub ReportHiddenSlides(slides)
  Dim index, count
  count = 0
  For index = 0 To slides.Count - 1
    If Not slides.getByIndex(index).Visible Then count = count + 1
  Next
  If count > 0 Then Report("hidden-slides " & count)
  If count > 0 And count = slides.Count Then Report("nothing")
End Sub

' As if every tracked change had been accepted, also in a document that protects its changes.
Sub ApplyChanges(document)
  Dim dispatcher
  document.RedlineProtectionKey = Array()
  dispatcher = CreateUnoService("com.sun.star.frame.DispatchHelper")
  dispatcher.executeDispatch(document.CurrentController.Frame, ".uno:AcceptAllTrackedChanges", "", 0, Array())
End Sub

Sub ExportSheets(document)
  Dim sheet, index, wanted, count, hiddenCount, isSeen
  wanted = CLng(Task(6))
  count = document.Sheets.Count
  hiddenCount = 0
  Report("sheets " & count)
  Dim shown(count) As Boolean
  For index = 0 To count - 1
    shown(index) = document.Sheets.getByIndex(index).IsVisible
  Next
  For index = 0 To count - 1
    sheet = document.Sheets.getByIndex(index)
    If wanted = 0 Or wanted = index + 1 Then
      If shown(index) Then
        SetPaper(document, sheet)
        isSeen = HasContent(sheet)
        If Not isSeen Then isSeen = FillColouredCells(sheet)
        If isSeen Then
          Room = RoomOfPage(document, sheet)
          If Task(3) <> "" Then FitColumns(sheet)
          FitRows(sheet)
          ReportWideColumns(sheet, index + 1)
          ReportHighRows(sheet, index + 1)
          ExportSheet(document, sheet, index + 1)
        End If
        Report("sheet " & (index + 1))
      ElseIf wanted > 0 Then
        Report("hidden")
      Else
        hiddenCount = hiddenCount + 1
      End If
    End If
  Next
  If hiddenCount > 0 Then Report("hidden-sheets " & hiddenCount)
End Sub

' LibreOffice writes the whole workbook when there is nothing on a sheet, so the others are hidden meanwhile.
Sub ExportSheet(document, sheet, sheetId)
  Dim index
  sheet.IsVisible = True
  For index = 0 To document.Sheets.Count - 1
    If index <> sheetId - 1 Then document.Sheets.getByIndex(index).IsVisible = False
  Next
  Export(document, "sheet-" & sheetId & ".pdf", "calc_pdf_Export", "Selection", sheet)
End Sub

' Where the paper cuts columns and rows that are larger, in hundredths of a millimetre; none of a sheet that is scaled to
' a number of pages.
Function RoomOfPage(document, sheet)
  Dim style, wide, high, scaling
  style = document.StyleFamilies.getByName("PageStyles").getByName(sheet.PageStyle)
  wide = style.Width - style.LeftMargin - style.RightMargin
  high = style.Height - style.TopMargin - style.BottomMargin
  If style.HeaderIsOn Then high = high - style.HeaderHeight
  If style.FooterIsOn Then high = high - style.FooterHeight
  scaling = IIf(style.PageScale > 0, style.PageScale, 100) / 100
  If style.ScaleToPages > 0 Or style.ScaleToPagesX > 0 Or style.ScaleToPagesY > 0 Then scaling = 0.001
  RoomOfPage = Array(wide / scaling, high / scaling, (wide + style.RightMargin) / scaling)
End Function

Function UsedArea(sheet)
  Dim cursor
  cursor = sheet.createCursor()
  cursor.gotoEndOfUsedArea(False)
  UsedArea = sheet.getCellRangeByPosition(0, 0, cursor.RangeAddress.EndColumn, cursor.RangeAddress.EndRow)
End Function

' LibreOffice has fitted the columns of a CSV file before it knew the results of its formulas. Columns with more than a
' page's width of text get lines, beside the other columns if there is room.
Sub FitColumns(sheet)
  Dim index, used, width, others, count
  used = UsedArea(sheet)
  used.Columns.OptimalWidth = True
  others = 0
  count = 0
  For index = 0 To used.Columns.Count - 1
    width = used.Columns.getByIndex(index).Width
    If width > Room(0) Then
      count = count + 1
    Else
      others = others + width
    End If
  Next
  If count = 0 Then Exit Sub
  width = (Room(0) - others) / count - 50
  If width < Room(0) / MOST_BESIDE Then width = Room(0)
  For index = 0 To used.Columns.Count - 1
    If used.Columns.getByIndex(index).Width > Room(0) Then
      used.Columns.getByIndex(index).Width = width
      used.getCellRangeByPosition(index, 0, index, used.Rows.Count - 1).IsTextWrapped = True
    End If
  Next
End Sub

' A column that is wider than a page is cut at the edge of the paper, a row that is higher at the lower margin.
Sub ReportWideColumns(sheet, sheetId)
  Dim column, index
  For index = 0 To Least(UsedArea(sheet).Columns.Count, MOST_MEASURED_COLUMNS) - 1
    column = sheet.Columns.getByIndex(index)
    If column.IsVisible And column.Width > Room(2) Then Report("wide " & sheetId & " " & (index + 1))
  Next
End Sub

' Only a row that has grown to its text can be so high: no program lets an author set it.
Sub ReportHighRows(sheet, sheetId)
  Dim index, row
  If HighestRow <= Room(1) Then Exit Sub
  For index = 0 To Least(UsedArea(sheet).Rows.Count, MOST_FITTED_ROWS) - 1
    row = sheet.Rows.getByIndex(index)
    If row.IsVisible And row.Height > Room(1) Then Report("high " & sheetId & " " & (index + 1))
  Next
End Sub

' Without a stored height LibreOffice makes some rows one line high, whatever is in them. Such rows grow to their text;
' none becomes lower or a little higher, and those whose height the author has set, or which are hidden, stay as they are.
Sub FitRows(sheet)
  Dim area, cursor, column, lastRow
  HighestRow = 0
  cursor = sheet.createCursor()
  cursor.gotoEndOfUsedArea(False)
  lastRow = Least(cursor.RangeAddress.EndRow, MOST_FITTED_ROWS - 1)
  For column = 0 To cursor.RangeAddress.EndColumn
    If sheet.Columns.getByIndex(column).IsVisible Then
      For Each area In sheet.getCellRangeByPosition(column, 0, column, lastRow).queryVisibleCells().RangeAddresses
        FitVisibleRows(sheet.Rows, sheet, area.StartRow, area.EndRow)
      Next
      Exit Sub
    End If
  Next
End Sub

' In blocks of automatic rows of one height.
Sub FitVisibleRows(rows, sheet, firstRow, lastRow)
  Dim first, row, height, isOpen, isNext
  isOpen = False
  For row = firstRow To lastRow
    isNext = rows.getByIndex(row).OptimalHeight
    If isOpen Then
      If Not isNext Or rows.getByIndex(row).Height <> height Then
        FitBlock(rows, sheet, first, row - 1, height)
        isOpen = False
      End If
    End If
    If isNext And Not isOpen Then
      isOpen = True
      first = row
      height = rows.getByIndex(row).Height
    End If
  Next
  If isOpen Then FitBlock(rows, sheet, first, lastRow, height)
End Sub

Sub FitBlock(rows, sheet, first, last, height)
  Dim row, start
  RowsOf(sheet, first, last).OptimalHeight = True
  start = first
  For row = first To last
    If rows.getByIndex(row).Height > HighestRow Then HighestRow = rows.getByIndex(row).Height
    If rows.getByIndex(row).Height >= height * GROWN Then
      If start < row Then RowsOf(sheet, start, row - 1).Height = height
      start = row + 1
    End If
  Next
  If start <= last Then RowsOf(sheet, start, last).Height = height
End Sub

Function RowsOf(sheet, first, last)
  RowsOf = sheet.getCellRangeByPosition(0, first, 0, last).Rows
End Function

Function HasContent(sheet) As Boolean
  HasContent = (sheet.queryContentCells(VALUES_DATES_TEXTS_FORMULAS).Count > 0 Or sheet.DrawPage.Count > 0)
End Function

' LibreOffice has no page for colours without text, so blanks are written into such cells, at least one for each page.
' False: no cell has a colour or a border, but perhaps whole columns or rows, which have no end.
Function FillColouredCells(sheet) As Boolean
  Dim formats, cells, area
  FillColouredCells = False
  formats = sheet.UniqueCellFormatRanges.createEnumeration()
  Do While formats.hasMoreElements()
    cells = formats.nextElement()
    If Not cells.IsCellBackgroundTransparent Or HasBorder(cells) Then
      For Each area In cells.RangeAddresses
        If area.EndRow < sheet.Rows.Count - 1 And area.EndColumn < sheet.Columns.Count - 1 Then
          FillArea(sheet, area)
          FillColouredCells = True
        End If
      Next
    End If
  Loop
End Function

Sub FillArea(sheet, area)
  Dim column, row, lastColumn, lastRow
  lastColumn = Least(area.EndColumn, area.StartColumn + MOST_COLUMNS)
  lastRow = Least(area.EndRow, area.StartRow + MOST_ROWS)
  For column = area.StartColumn To lastColumn Step COLUMNS_BETWEEN_BLANKS
    For row = area.StartRow To lastRow Step ROWS_BETWEEN_BLANKS
      If sheet.getCellByPosition(column, row).Type = com.sun.star.table.CellContentType.EMPTY Then
        sheet.getCellByPosition(column, row).String = " "
      End If
    Next
  Next
End Sub

Function Least(one, other)
  Least = IIf(one < other, one, other)
End Function

Function HasBorder(cells) As Boolean
  HasBorder = (Width(cells.LeftBorder) + Width(cells.RightBorder) + Width(cells.TopBorder) + Width(cells.BottomBorder) > 0)
End Function

Function Width(line) As Long
  Width = line.OuterLineWidth + line.InnerLineWidth
End Function

' A table of plain text, or of a web page, has no headers, footers and widths of columns.
Function HasLayout(document) As Boolean
  Dim argument
  HasLayout = (Task(3) = "")
  For Each argument In document.Args
    If argument.Name = "FilterName" Then
      If InStr(argument.Value, "HTML") > 0 Then HasLayout = False
    End If
  Next
End Function

Sub SetPaper(document, sheet)
  Dim style
  style = document.StyleFamilies.getByName("PageStyles").getByName(sheet.PageStyle)
  style.IsLandscape = (CLng(Task(7)) > CLng(Task(8)))
  style.Width = CLng(Task(7))
  style.Height = CLng(Task(8))
  style.PrintAnnotations = False
  If Not HasLayout(document) Then  ' LibreOffice writes the name of the sheet and page numbers
    style.HeaderIsOn = False
    style.FooterIsOn = False
  End If
End Sub

' Comments do not become annotations of the PDF: those have icons.
Sub Export(document, fileName As String, filterName As String, detail As String, value)
  Dim details(1) As New com.sun.star.beans.PropertyValue
  details(0).Name = "ExportNotes"
  details(0).Value = False
  details(1).Name = detail
  details(1).Value = value
  Dim arguments(1) As New com.sun.star.beans.PropertyValue
  arguments(0).Name = "FilterName"
  arguments(0).Value = filterName
  arguments(1).Name = "FilterData"
  arguments(1).Value = details()
  document.storeToURL(Task(1) & "/" & fileName, arguments())
End Sub

Sub Report(what As String)
  Dim channel
  channel = FreeFile
  Open Task(2) For Append As #channel
  Print #channel, what
  Close #channel
End Sub
